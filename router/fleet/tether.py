"""A connection that nothing is sent on: it breaks when the process at its other end is no more.

That is known at once, without traffic and whatever the interval of probes is. What closes idle connections in
between (a proxy, a strict server) costs one more question to the replica, nothing else.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

LONGEST_PAUSE_S = 5.0
FIRST_PAUSE_S = 0.1


class Tether:
    """Holds on to one process; `changed` is called when it has hold of one, and when that has let go."""

    def __init__(self, url: str, changed: Callable[[], None], timeout_s: Callable[[], float]) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._changed = changed
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Until cancelled; one that lets go often, or nobody who listens, is tried less and less often."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            await self._hold()
            held_s = loop.time() - began
            pause_s = FIRST_PAUSE_S if held_s > LONGEST_PAUSE_S else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _hold(self) -> None:
        """Connect, and wait for the end."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        try:
            async with asyncio.timeout(self._timeout_s()):
                transport, _ = await loop.create_connection(lambda: _End(ended), self._host, self._port)
        except OSError:
            return
        try:
            # Whoever was asked before may have been another one.
            self._changed()
            await ended
        finally:
            transport.abort()
        self._changed()


class _End(asyncio.Protocol):
    """Resolves a future when the connection ends, or the other side speaks, which it has no reason to."""

    def __init__(self, ended: "asyncio.Future[None]") -> None:
        self._ended = ended

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
