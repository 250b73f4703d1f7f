"""Tokens per byte, or per piece of a stream: learned from what engines report, in whole numbers.

Short prompts have more tokens a byte than long ones, since a chat template adds as many to each: so sizes
that differ by a factor of two are learned apart.
"""

from typing import Final

from policies.limits.recent import Recent

_ONE: Final = 1 << 16
"""Ratios are whole numbers of tokens per 65,536 units."""
_ENOUGH: Final = 8
"""From so many answers on they are believed."""
_WINDOW: Final = 128


def ratio(tokens: int, units: int) -> int:
    """So many tokens per so many units, rounded up."""
    return -(-tokens * _ONE // units)


class Ratio:
    """Of one model. Bounded: a window for each power of two that was seen."""

    __slots__ = ("_by_size", "_overall", "_prior")

    def __init__(self, prior: int) -> None:
        self._prior = prior
        self._overall = Recent(_WINDOW)
        self._by_size: dict[int, Recent] = {}

    def of(self, units: int) -> tuple[int, int]:
        """Tokens of `units`, at least 1: as many as half have, and as nine in ten have at most."""
        known = self._by_size.get(units.bit_length())
        if known is None or known.count < _ENOUGH:
            known = self._overall
            if known.count < _ENOUGH:
                prior = -(-units * self._prior // _ONE) or 1
                return prior, prior
        return -(-units * known.middle // _ONE) or 1, -(-units * known.high // _ONE) or 1

    def learn(self, tokens: int, units: int) -> None:
        """`units` were `tokens`; none of none teaches nothing."""
        if units <= 0:
            return
        found = ratio(tokens, units)
        self._overall.add(found)
        size = units.bit_length()
        if size not in self._by_size:
            self._by_size[size] = Recent(_WINDOW)
        self._by_size[size].add(found)
