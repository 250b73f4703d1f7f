"""Which process holds how many slots: each that lives has a place, and with it a cell in every row of slots.

A process proves that it lives with the lock of its place's byte, which the kernel gives back when it dies. A
place's word is odd while somebody has it, and another one for each who ever had it; a cell counts while it
names the word of its place. So with one write to the word, a dead process holds nothing.
"""

from struct import Struct

from router.control.limits.bucket_file import WORD, BucketFile
from router.control.limits.life_lock import lock_byte, unlock_byte

_COUNT = 0xFFFF_FFFF
_WORD_BITS = 32


class Places:
    """Call all but `share` under the lock of the file. The first word says how many places were ever used."""

    def __init__(self, file: BucketFile) -> None:
        self._file = file
        self._words = file.unsigned
        self._most = file.geometry.places
        self._cells_from = file.geometry.cells_at // WORD
        self._used = Struct("0Q")
        self._own = 0
        """Index of this process's word; places count from 1."""
        self._word = 0

    @property
    def taken(self) -> bool:
        return self._own > 0

    def take(self) -> bool:
        """Have one; False if all are taken by processes that live."""
        for place in range(1, self._most + 1):
            if lock_byte(self._file.fd, place):
                self._own = place
                # The next odd one, also if whoever had it left it odd.
                self._word = (self._words[place] + 1) & _COUNT | 1
                self._words[place] = self._word
                self._words[0] = max(self._words[0], place)
                return True
        return False

    def leave(self) -> None:
        if self.taken:
            self._words[self._own] = self._word + 1
            unlock_byte(self._file.fd, self._own)
            self._own = 0

    def bury(self) -> bool:
        """Take back what the dead hold. True if somebody had died."""
        buried = False
        for place in range(1, self._words[0] + 1):
            if self._words[place] & 1 and place != self._own and lock_byte(self._file.fd, place):
                self._words[place] += 1
                unlock_byte(self._file.fd, place)
                buried = True
        return buried

    def held(self, row: int) -> int:
        """By all processes that live, as far as is known."""
        used = self._words[0]
        if self._used.size != WORD * used:
            self._used = Struct(f"{used}Q")
        cells = self._used.unpack_from(self._file.map, WORD * self._cell(row, 1))
        words = self._used.unpack_from(self._file.map, WORD)
        return sum(
            [cell & _COUNT for cell, word in zip(cells, words, strict=True) if cell >> _WORD_BITS == word]
        )

    def own(self, row: int) -> int:
        """By this process."""
        cell = self._words[self._cell(row, self._own)]
        return cell & _COUNT if cell >> _WORD_BITS == self._word else 0

    def hold(self, row: int, count: int) -> None:
        """So many, by this process."""
        self._words[self._cell(row, self._own)] = self._word << _WORD_BITS | count

    def share(self) -> tuple[int, int]:
        """Among how many processes limits are divided, and the number of this one, from 0."""
        living = [place for place in range(1, self._words[0] + 1) if self._words[place] & 1]
        if self.taken:
            return len(living), living.index(self._own)
        return len(living) + 1, len(living)

    def _cell(self, row: int, place: int) -> int:
        return self._cells_from + row * self._most + place - 1
