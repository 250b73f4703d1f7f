"""The file that holds the buckets of all workers, mapped into the memory of each.

Its parts, in this order: the words of `Places`; the hashes of budgets and their TATs; the hashes of slots and
their cells, one for each place. A word, a TAT and a cell are 8 bytes at a multiple of 8, so that a process
killed while it writes one leaves the old value or the new one.
"""

import contextlib
import mmap
import os
import sys
from pathlib import Path
from typing import NamedTuple

WORD = 8
HASH_BYTES = 16
_PAGE = 4096


class Geometry(NamedTuple):
    """How much a file holds; all who share it must have the same. The default takes up to 33 MB.

    Pages of a file on a disk take no memory before they are used.
    """

    budgets: int = 1 << 20
    """Rows for token buckets that are not full: more than half of them in use, and some find no row."""
    slots: int = 1 << 15
    """Rows for what has requests open."""
    places: int = 16
    """Processes that live at a time, those that drain included."""

    @property
    def budget_hashes_at(self) -> int:
        return _whole_pages(WORD * (1 + self.places))

    @property
    def tats_at(self) -> int:
        return self.budget_hashes_at + _whole_pages(HASH_BYTES * self.budgets)

    @property
    def slots_hashes_at(self) -> int:
        return self.tats_at + _whole_pages(WORD * self.budgets)

    @property
    def cells_at(self) -> int:
        return self.slots_hashes_at + _whole_pages(HASH_BYTES * self.slots)

    @property
    def size(self) -> int:
        return self.cells_at + _whole_pages(WORD * self.places * self.slots)


class BucketFile:
    """Opened, or made by whoever comes first. `signed` and `unsigned` are its words, `map` its bytes.

    Raises `OSError` if it cannot be made, or is of another geometry.
    """

    def __init__(self, folder: Path, geometry: Geometry) -> None:
        self.folder = folder
        self.geometry = geometry
        path = folder / "limits.buckets"
        _make(path, geometry.size)
        self.fd = os.open(path, os.O_RDWR)
        if os.fstat(self.fd).st_size != geometry.size:
            os.close(self.fd)
            raise OSError(f"{path} is not one of this router's")
        self.map = mmap.mmap(self.fd, geometry.size)
        self._bytes = memoryview(self.map)
        self.signed = self._bytes.cast("q")
        self.unsigned = self._bytes.cast("Q")

    def close(self) -> None:
        for view in (self.signed, self.unsigned, self._bytes):
            view.release()
        self.map.close()
        os.close(self.fd)


def _make(path: Path, size: int) -> None:
    """It appears whole, so that nobody has to wait for it."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if sys.platform == "linux":
            # To write into a hole of a full disk would kill the process.
            os.posix_fallocate(fd, 0, size)
        else:
            os.ftruncate(fd, size)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.close(fd)
        draft.unlink()


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
