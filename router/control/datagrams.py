"""Messages between the processes of one host: Unix datagrams in a folder with one socket a process.

One message costs its sender about 10 us and a peer as much. Linux queues ten datagrams a socket
(`net.unix.max_dgram_qlen`), less than a peer misses in a pause of its event loop: so what does not fit waits
here for a moment.
"""

import asyncio
import contextlib
import socket
from collections import deque
from pathlib import Path
from time import monotonic

from router.control.channel import Received
from router.control.messages import Member

DELAY_S = 0.003
RETRY_S = 0.005
LOOK_ROUND_S = 0.1
"""How soon a peer is seen that has said nothing; the folder is read when something is to be sent."""
MAX_WAITING = 256
"""Messages that wait for one peer: more than a second of a busy member's."""
MAX_BYTES = 262_144


class DatagramChannel:
    """Reaches every process that has a socket in `folder`."""

    delay_s = DELAY_S
    far = False
    healthy = True

    def __init__(self, folder: Path, member: Member) -> None:
        self.dropped = 0
        self._folder = folder
        self._own = _path(folder, member)
        self._socket: socket.socket | None = None
        self._buffer = memoryview(bytearray(MAX_BYTES))
        self._peers: dict[str, deque[bytes]] = {}
        self._looked_at = 0.0
        self._retry: asyncio.TimerHandle | None = None

    async def start(self, received: Received) -> None:
        """Raises `OSError` if the folder cannot be written in."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.settimeout(0)
        self._socket = sock
        sock.bind(self._own)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read, sock, received)

    def send(self, message: bytes, to: Member | None = None) -> None:
        if self._socket is None:
            return
        self._look_round()
        paths = list(self._peers) if to is None else [_path(self._folder, to)]
        for path in paths:
            waiting = self._peers.get(path)
            if waiting is None:
                continue
            if len(waiting) >= MAX_WAITING:
                waiting.popleft()
                self.dropped += 1
            waiting.append(message)
            self._push(self._socket, path, waiting)

    async def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            _remove(self._own)

    def _read(self, sock: socket.socket, received: Received) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                size, sender = sock.recvfrom_into(self._buffer)
                self._peers.setdefault(sender, deque())
                received(bytes(self._buffer[:size]))

    def _look_round(self) -> None:
        now = monotonic()
        if now - self._looked_at < LOOK_ROUND_S:
            return
        self._looked_at = now
        there = {str(path) for path in self._folder.glob("*.member")} - {self._own}
        self._peers = {path: self._peers.get(path) or deque() for path in there}

    def _push(self, sock: socket.socket, path: str, waiting: deque[bytes]) -> None:
        """Send what waits for a peer, as far as it takes it."""
        try:
            while waiting:
                sock.sendto(waiting[0], path)
                waiting.popleft()
        except BlockingIOError:
            if self._retry is None:
                self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._push_all)
        except (FileNotFoundError, ConnectionRefusedError):
            self._peers.pop(path, None)
            _remove(path)
        except OSError:
            waiting.popleft()
            self.dropped += 1

    def _push_all(self) -> None:
        self._retry = None
        if self._socket is not None:
            for path, waiting in list(self._peers.items()):
                self._push(self._socket, path, waiting)


def _path(folder: Path, member: Member) -> str:
    return str(folder / f"{member.origin:08x}.member")


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
