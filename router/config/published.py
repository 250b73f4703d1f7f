"""The configurations of a router of several processes, in its folder: one process writes, all read.

So a process that is born later serves by the one in force, whatever the file says by then.
"""

import os
from pathlib import Path

import msgspec

from router.config.history import Generation, History


class Published:
    """`folder` is the router's own: texts may hold secrets."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "configurations"
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[Generation]).decode

    def write(self, history: History) -> None:
        """Readers see the old or the new one, never a part. Raises `OSError`."""
        parts = self.path.with_suffix(".new")
        descriptor = os.open(parts, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._encode(history.generations))
        parts.replace(self.path)

    def read(self) -> History:
        """Raises `OSError` where nothing was written."""
        return History(self._decode(self.path.read_bytes()))
