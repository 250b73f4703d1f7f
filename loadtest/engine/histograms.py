"""A histogram that costs one bisection per value."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import inf

from loadtest.engine.exposition_wire import Histogram


class Buckets:
    """Counts by upper bound; a value equal to a bound falls below it, as Prometheus has it."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def add_all(self, values: Iterable[float]) -> None:
        """Count many."""
        for value in values:
            self.add(value)

    def histogram(self) -> Histogram:
        """The cumulative form."""
        cumulative = tuple(accumulate(self._counts))
        return Histogram(
            tuple(zip((*self._bounds, inf), cumulative, strict=True)), self._total, cumulative[-1]
        )


def one_two_five(limit: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, ... up to the limit."""
    bounds: list[float] = []
    scale = 1
    while scale <= limit:
        bounds += [float(scale * step) for step in (1, 2, 5) if scale * step <= limit]
        scale *= 10
    return tuple(bounds)
