"""Weighted rendezvous hashing: every process ranks the replicas of a session alike, and shares nothing.

Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998; weights after Schindelhauer
and Schomaker, "Weighted Distributed Hash Tables", 2005. A replica's draw depends on the session and on its
own id alone, so one that comes or goes moves only its own share.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from math import log
from struct import Struct
from typing import Final

_LANE_BITS: Final = 128
_WORD: Final = (1 << 64) - 1
# Odd 64-bit constants with bits in no pattern: the fractions of the golden ratio and of pi.
_FIRST_FACTOR: Final = 0x9E3779B97F4A7C15
_SECOND_FACTOR: Final = 0x243F6A8885A308D3
_SPAN: Final = 2.0**64
_REMEMBERED: Final = 64
"""How many sets of replicas are kept ready: availability changes them back and forth."""


class Rendezvous:
    """Scores for one fleet. Holds no state that changes an answer."""

    def __init__(self) -> None:
        self._lanes_of = lru_cache(_REMEMBERED)(_Lanes)

    def scores(self, session: str, ids: Sequence[str], weights: Sequence[float]) -> list[float]:
        """One number per replica, the greatest is the session's home; only their order means anything.

        The order is that of log(u) / weight with u even in (0, 1), which for equal weights is that of u.
        """
        draws = self._lanes_of(tuple(ids)).draws(_word(session))
        if weights.count(weights[0]) == len(weights):
            return list(draws)
        return [log((draw + 0.5) / _SPAN) / weight for draw, weight in zip(draws, weights, strict=True)]


class _Lanes:
    """The replicas' words, each in its own lane of one integer: one multiplication mixes them all.

    A lane is 128 bits and holds 64, so a product of two words fits and nothing carries into the next.
    """

    def __init__(self, ids: tuple[str, ...]) -> None:
        shifts = range(0, len(ids) * _LANE_BITS, _LANE_BITS)
        self._lanes = Struct("<" + "Q8x" * len(ids))
        self._ones = sum(1 << shift for shift in shifts)
        self._low = _WORD * self._ones
        self._words = sum(_word(id_) << shift for id_, shift in zip(ids, shifts, strict=True))

    def draws(self, session: int) -> Sequence[int]:
        """One 64-bit number per replica, each a mix of its word and the session's."""
        mixed = self._fold((session * self._ones ^ self._words) * _FIRST_FACTOR)
        mixed = self._fold(mixed * _SECOND_FACTOR)
        return self._lanes.unpack(mixed.to_bytes(self._lanes.size, "little"))

    def _fold(self, product: int) -> int:
        """High half xor low half of each lane: mixes far better than either half alone."""
        return (product ^ product >> 64) & self._low


def _word(text: str) -> int:
    """A stable 64-bit hash; Python's own differs in each process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
