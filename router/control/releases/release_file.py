"""Releases in a file: what every process of a host reads, and where they are kept without Redis.

It is replaced as a whole, under a lock beside it, and synced: whoever reads it reads one state, also after a
crash at any point.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from policies.release.lifecycle import Release
from router.control.releases.records import Conflict, Entry, Record, StoreAway

_BOOK: Final = msgspec.json.Decoder(dict[str, Record])
Stamp = tuple[int, int, int]
"""What changes when the file does: inode, size and time of change."""


class ReleaseFile:
    """`path` need not exist before the first move."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name(f".{path.name}.lock")
        self._new = path.with_name(f".{path.name}.new")
        self._read: Mapping[str, Release] = {}
        self._read_at: Stamp | None = None

    def stamp(self) -> Stamp | None:
        """Cheap enough to be asked many times a second."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def load(self) -> dict[str, Record]:
        """Raises `StoreAway` for a file that cannot be read, or that somebody has damaged."""
        try:
            return _BOOK.decode(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreAway(f"{self.path} cannot be read ({error}); repair or remove it") from error

    async def read(self) -> Mapping[str, Release]:
        """Asked many times a second: what has not changed is not read again."""
        stamp = self.stamp()
        if stamp is None or stamp != self._read_at:
            self._read = {model: record.release for model, record in self.load().items()}
            self._read_at = stamp
        return self._read

    async def swap(self, model: str, release: Release, entry: Entry) -> None:
        await asyncio.to_thread(self._swap, model, release, entry)

    async def history(self, model: str) -> Sequence[Entry]:
        record = self.load().get(model)
        return () if record is None else record.history

    async def replace(self, releases: Mapping[str, Release]) -> None:
        """What another store says, whatever is here; a model's past stays. Raises `StoreAway`."""
        await asyncio.to_thread(self._replace, releases)

    def _swap(self, model: str, release: Release, entry: Entry) -> None:
        with self._locked():
            book = self.load()
            before = book.get(model)
            if (0 if before is None else before.release.generation) != release.generation - 1:
                raise Conflict(model)
            book[model] = (before or Record(release)).then(release, entry)
            self._write(book)

    def _replace(self, releases: Mapping[str, Release]) -> None:
        with self._locked():
            book = self.load()
            self._write(
                {
                    model: Record(one, book[model].history if model in book else ())
                    for model, one in releases.items()
                }
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock.open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StoreAway(
                f"{self.path} cannot be written ({error.strerror}); set [releases] file to a place that can"
            ) from error

    def _write(self, book: Mapping[str, Record]) -> None:
        with self._new.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(book)))
            file.flush()
            os.fsync(file.fileno())
        self._new.replace(self.path)
