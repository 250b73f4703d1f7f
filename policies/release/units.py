"""What has been counted already: a session is one witness, however many requests it makes.

Who decides by requests is misled by sessions: their requests fail together, and are slow together.
"""

from typing import Final

_BITS: Final = 17
_MASK: Final = (1 << _BITS) - 1
_FULL: Final = 1 << (_BITS - 2)
_SPREAD: Final = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: Knuth's multiplicative hashing."""
_UNIT: Final = (1 << 32) - 1


class Seen:
    """Units, in 16 KiB. A unit whose bit another has taken is passed over, by chance and in both arms alike.

    After 32,768 units it forgets all of them: one that goes on may then count a second time.
    """

    __slots__ = ("_bits", "_count")

    def __init__(self) -> None:
        self._bits = bytearray(1 << (_BITS - 3))
        self._count = 0

    def first(self, unit: int) -> bool:
        """Whether it is new. It is not, from now on."""
        at = (unit * _SPREAD >> 40) & _MASK
        bit = 1 << (at & 7)
        if self._bits[at >> 3] & bit:
            return False
        if self._count == _FULL:
            self.clear()
        self._bits[at >> 3] |= bit
        self._count += 1
        return True

    def clear(self) -> None:
        self._bits = bytearray(len(self._bits))
        self._count = 0

    def snapshot(self) -> bytes:
        return bytes(self._bits)

    def restore(self, state: bytes) -> None:
        self._bits = bytearray(state)
        self._count = int.from_bytes(state, "little").bit_count()


class Marked:
    """Units that had a bad event, and the step of their last one. At most `most`: the oldest is forgotten.

    Who is forgotten may count a second time; `most` others have had theirs in between.
    """

    __slots__ = ("_most", "_steps")

    def __init__(self, most: int = 2048) -> None:
        self._most = most
        self._steps: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def mark(self, unit: int, step: int) -> tuple[bool, bool]:
        """Whether this is its first bad event of all, and whether it is its first at this step."""
        unit &= _UNIT
        before = self._steps.get(unit)
        if before == step:
            return False, False
        self._steps[unit] = step
        if before is None and len(self._steps) > self._most:
            del self._steps[next(iter(self._steps))]
        return before is None, True

    def snapshot(self) -> bytes:
        """5 bytes each: the unit's lower 32 bits, and the step's lower 8."""
        return b"".join(unit.to_bytes(4, "big") + bytes((step & 255,)) for unit, step in self._steps.items())

    def restore(self, state: bytes) -> None:
        self._steps = {
            int.from_bytes(state[at : at + 4], "big"): state[at + 4] for at in range(0, len(state), 5)
        }
