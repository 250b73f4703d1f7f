"""How positive numbers are distributed, in cells of equal ratio: so many counters, however many numbers."""

from collections.abc import Sequence
from itertools import accumulate
from math import exp, log
from typing import Final

_RATIO_STEP: Final = 0.01
_RATIO_CELLS: Final = 401
_VALUE_STEP: Final = 0.05
_VALUE_CELLS: Final = 600


class Histogram:
    """Cell i holds the numbers x with i <= ln x / step + origin < i + 1; the outermost hold all beyond."""

    __slots__ = ("_cells", "_origin", "_step", "count")

    def __init__(self, step: float, cells: int, origin: int) -> None:
        self._step = step
        self._origin = origin
        self._cells = [0] * cells
        self.count = 0

    def add(self, value: float) -> None:
        """`value` is finite and above 0."""
        self.put(self.cell(value))

    def cell(self, value: float) -> int:
        """Where it belongs."""
        at = int(log(value) / self._step + self._origin)
        if at < 0:
            return 0
        return at if at < len(self._cells) else len(self._cells) - 1

    def put(self, cell: int) -> None:
        """One of this cell."""
        self._cells[cell] += 1
        self.count += 1

    def median(self) -> float | None:
        """The middle of the cell that it is in; None if there is nothing."""
        if not self.count:
            return None
        at = next(at for at, seen in enumerate(accumulate(self._cells)) if 2 * seen >= self.count)
        return exp((at - self._origin + 0.5) * self._step)

    def at_least(self, value: float) -> int:
        """How many are as great, or in the same cell."""
        return sum(self._cells[self.cell(value) :])

    def clear(self) -> None:
        self._cells = [0] * len(self._cells)
        self.count = 0

    def snapshot(self) -> tuple[int, ...]:
        return tuple(self._cells)

    def restore(self, state: Sequence[int]) -> None:
        self._cells = list(state)
        self.count = sum(state)


def of_ratios() -> Histogram:
    """Ratios from 1/7 to 7, to 1 per cent."""
    return Histogram(_RATIO_STEP, _RATIO_CELLS, _RATIO_CELLS // 2)


def of_values() -> Histogram:
    """Seconds or tokens, from a microsecond to ten million, to 5 per cent."""
    return Histogram(_VALUE_STEP, _VALUE_CELLS, _VALUE_CELLS * 9 // 20)
