"""ZeroMQ sockets; the one file that imports pyzmq, which is an optional extra.

A link re-establishes its connection by itself, with growing pauses, and bounds what waits to be read or sent.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from router.fleet.extras import optional

_EXTRA: Final = "turnout[kv-events]"
_RECONNECT_MS: Final = 100
_LONGEST_RECONNECT_MS: Final = 5_000
_MAX_MESSAGE_BYTES: Final = 64 << 20
_SILENCE_MS: Final = 10_000
"""A peer that does not answer heartbeats for so long is taken for gone, also behind a cut wire."""


class LinkError(Exception):
    """A socket cannot be opened or used; the message says why."""


class Links:
    """Opens sockets on one I/O thread. Make and use it inside one event loop. Raises `ExtraMissing`."""

    def __init__(self) -> None:
        self._zmq = optional("zmq", _EXTRA)
        self._context = optional("zmq.asyncio", _EXTRA).Context()

    def subscriber(self, endpoint: str, topic: str, max_queued: int) -> "Link":
        """Hears messages whose first frame begins with `topic`, at most `max_queued` unread.

        Where the host is `*` it listens, for publishers that connect.
        """
        link = self._link(self._zmq.SUB, max_queued)
        link.watch()
        link.set(self._zmq.SUBSCRIBE, topic.encode())
        return link.open(endpoint, bind="*" in endpoint)

    def dealer(self, endpoint: str, max_queued: int) -> "Link":
        """Asks, and gets any number of answers."""
        return self._link(self._zmq.DEALER, max_queued).open(endpoint, bind=False)

    def publisher(self, endpoint: str, max_queued: int, *, bind: bool) -> "Link":
        """What a subscriber has no room for is dropped."""
        return self._link(self._zmq.PUB, max_queued).open(endpoint, bind=bind)

    def router(self, endpoint: str, max_queued: int) -> "Link":
        """Answers dealers: the first frame of a message says which."""
        return self._link(self._zmq.ROUTER, max_queued).open(endpoint, bind=True)

    def close(self) -> None:
        """All sockets, at once; what was not sent is dropped."""
        self._context.destroy(linger=0)

    def _link(self, kind: int, max_queued: int) -> "Link":
        return Link(self._zmq, self._context.socket(kind), max_queued)


class Link:
    """One socket. Whatever fails raises `LinkError`."""

    def __init__(self, zmq: Any, socket: Any, max_queued: int) -> None:
        self._zmq = zmq
        self._receive_monitor = optional("zmq.utils.monitor", _EXTRA).recv_monitor_message
        self._socket = socket
        self._monitor: Any = None
        self.set(zmq.LINGER, 0)
        self.set(zmq.RCVHWM, max_queued)
        self.set(zmq.SNDHWM, max_queued)
        self.set(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        self.set(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self.set(zmq.RECONNECT_IVL_MAX, _LONGEST_RECONNECT_MS)
        self.set(zmq.HEARTBEAT_IVL, _SILENCE_MS // 2)
        self.set(zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS)

    def set(self, option: int, value: int | bytes) -> None:
        self._socket.setsockopt(option, value)

    def watch(self) -> None:
        """Note connections from now on, for `connection_changed`."""
        noted = self._zmq.EVENT_HANDSHAKE_SUCCEEDED | self._zmq.EVENT_DISCONNECTED
        self._monitor = self._socket.get_monitor_socket(noted)

    def open(self, endpoint: str, *, bind: bool) -> "Link":
        self.set(self._zmq.IPV6, int("[" in endpoint))
        try:
            (self._socket.bind if bind else self._socket.connect)(endpoint)
        except self._zmq.ZMQError as error:
            self.close()
            raise LinkError(f"{endpoint} cannot be opened: {error}") from None
        return self

    async def receive(self) -> list[bytes]:
        """The frames of the next message."""
        try:
            frames: list[bytes] = await self._socket.recv_multipart()
        except self._zmq.ZMQError as error:
            raise LinkError(str(error)) from None
        return frames

    async def send(self, frames: Sequence[bytes]) -> None:
        """Waits while there is no room."""
        try:
            await self._socket.send_multipart(frames)
        except self._zmq.ZMQError as error:
            raise LinkError(str(error)) from None

    def offer(self, frames: Sequence[bytes]) -> None:
        """Send without waiting; what there is no room for, or no socket any more, is dropped."""
        if self._socket.closed:
            return
        with contextlib.suppress(self._zmq.ZMQError):
            self._zmq.Socket.shadow(self._socket).send_multipart(frames, self._zmq.NOBLOCK)

    async def connection_changed(self) -> bool:
        """The next change since `watch`: True for a connection that came about, False for one that ended."""
        event = (await self._receive_monitor(self._monitor))["event"]
        return bool(event == self._zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def close(self) -> None:
        """Once is enough, twice does no harm."""
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None
        self._socket.close(linger=0)
