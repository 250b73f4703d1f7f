"""Where in the file a key has its row: near where its hash points, so that it is found in one look.

A key may be in any of `REACH` rows from there. A row is never emptied: it is reused once it says nothing.
"""

import mmap
from collections.abc import Callable, Container
from hashlib import blake2b

from router.control.limits.bucket_file import HASH_BYTES

NONE = 0
"""The first row: nobody's, and always zero."""
REACH = 128
_KNOWN = 1 << 16


class Rows:
    """The hashes from `start` on. Whoever changes them holds the lock."""

    def __init__(self, file: mmap.mmap, start: int, count: int) -> None:
        self._map = file
        self._start = start
        self._reach = min(REACH, count - 1)
        self._homes = count - self._reach
        self._known: dict[str, tuple[int, slice, bytes]] = {}

    def find(self, key: str) -> int:
        """Its row, or `NONE`."""
        known = self._known.get(key)
        if known is not None:
            row, where, wanted = known
            if self._map[where] == wanted:
                return row
        wanted, home = self._hash(key)
        at = self._search(wanted, home)
        return NONE if at < 0 else self._keep(key, at, wanted)

    def claim(self, key: str, free: Callable[[int], bool], spared: Container[int]) -> int:
        """A row for a key that has none: one that is `free` and not `spared`, or `NONE`."""
        wanted, home = self._hash(key)
        for row in range(home, home + self._reach):
            if row not in spared and free(row):
                at = self._start + HASH_BYTES * row
                self._map[at : at + HASH_BYTES] = wanted
                return self._keep(key, at, wanted)
        return NONE

    def _hash(self, key: str) -> tuple[bytes, int]:
        hashed = blake2b(key.encode(), digest_size=HASH_BYTES).digest()
        return hashed, 1 + int.from_bytes(hashed[:8], "little") % self._homes

    def _search(self, wanted: bytes, home: int) -> int:
        at = self._start + HASH_BYTES * home
        end = at + HASH_BYTES * self._reach
        at = self._map.find(wanted, at, end)
        while at >= 0 and (at - self._start) % HASH_BYTES:
            at = self._map.find(wanted, at + 1, end)
        return at

    def _keep(self, key: str, at: int, wanted: bytes) -> int:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        row = (at - self._start) // HASH_BYTES
        self._known[key] = row, slice(at, at + HASH_BYTES), wanted
        return row
