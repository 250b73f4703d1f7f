"""From workers to the overview: what requests have shown of releases, over a Unix datagram socket.

What does not get through is lost: evidence then comes a little slower, and no request waits for it.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from policies.release.observation import Observation
from router.control.releases.keeper import Seen

log = logging.getLogger("turnout.releases")

FLUSH_S: Final = 0.05
MOST_WAITING: Final = 10_000
_BATCH: Final = 200
"""About 20 kB, well below what a datagram may hold."""
MAX_BYTES: Final = 262_144

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Seen]).decode


def _path(folder: Path) -> str:
    return str(folder / "evidence.sock")


class EvidencePost:
    """A worker's end."""

    def __init__(self, folder: Path) -> None:
        self._path = _path(folder)
        self._waiting: deque[Seen] = deque(maxlen=MOST_WAITING)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._timer: asyncio.TimerHandle | None = None

    def observe(self, salt: str, observation: Observation) -> None:
        self._waiting.append((salt, observation))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()

    def _flush(self) -> None:
        self._timer = None
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                self._socket.sendto(_encode(batch), self._path)
            except OSError:
                # The overview is busy or gone: these wait for the next time, and the oldest are lost.
                self._waiting.extendleft(reversed(batch))
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
                return


class EvidenceBox:
    """The overview's end."""

    def __init__(self, folder: Path, observe: Callable[[str, Observation], None]) -> None:
        self._path = Path(_path(folder))
        self._observe = observe
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Raises `OSError` if the folder cannot be used."""
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._socket.bind(str(self._path))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    seen = _decode(self._socket.recv(MAX_BYTES))
                except msgspec.MsgspecError as error:
                    log.warning("a worker's evidence cannot be read: %s", error)
                    continue
                for salt, observation in seen:
                    self._observe(salt, observation)
