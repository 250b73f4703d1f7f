"""Is the canary slower, or are its answers of another length? Each value is ranked among like ones of stable.

Like: the same hour, as many prompt tokens to compute, as great a share of them cached. A canary starts with
an empty cache, and whoever compares its times as they are finds every canary slow.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from math import exp, floor, inf, lgamma, log
from typing import Final, NamedTuple

from policies.release.betting import Bets
from policies.release.histogram import of_ratios, of_values
from policies.release.observation import Observation

ODDS: Final = (1.25, 1.5, 2.0, 3.0, 6.0)
"""That the canary's of two values is the greater. Small ones too: 20 per cent more are but 1.4 to 1."""
OTHERS: Final = 7
"""With so many of stable a value is compared at most: a pair alone proves a third of what is to be known."""
_KEPT: Final = 8
"""Values of stable at hand in each stratum: the newest."""
_LARGEST_BUCKET: Final = 17


class Values(NamedTuple):
    """What is compared of one request: seconds and tokens above 0, None where nothing was measured."""

    time_to_first_token: float | None
    inter_token: float | None
    completion_tokens: float | None


def values_of(seen: Observation) -> Values:
    """What is no positive finite number was not measured."""
    first, between, tokens = seen.time_to_first_token_s, seen.inter_token_s, seen.completion_tokens
    return Values(
        first if first is not None and 0 < first < inf else None,
        between if between is not None and 0 < between < inf else None,
        tokens if tokens is not None and 0 < tokens < inf else None,
    )


def stratum_of(seen: Observation) -> int:
    """3 times the power of two that the uncached prompt tokens are below, and the third that is cached."""
    prompt, cached = seen.prompt_tokens, seen.cached_tokens or 0
    if prompt is None or prompt <= 0:
        return 0
    if not 0 <= cached < prompt:
        cached = 0 if cached < 0 else prompt
    bucket = (prompt - cached).bit_length()
    if bucket > _LARGEST_BUCKET:
        bucket = _LARGEST_BUCKET
    return 3 * bucket + 3 + (3 * cached // prompt if cached < prompt else 2)


class Strata:
    """The newest values of stable, each given out once: at most 57 strata of 8 requests."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[int, tuple[int, list[Values]]] = {}

    def keep(self, stratum: int, hour: int, values: Values) -> None:
        kept, rows = self._rows.get(stratum, (hour, []))
        if kept != hour:
            rows = []
        if len(rows) == _KEPT:
            del rows[0]
        rows.append(values)
        self._rows[stratum] = (hour, rows)

    def holds(self, stratum: int, hour: int) -> bool:
        """Whether there is any to compare with."""
        kept, rows = self._rows.get(stratum, (hour, []))
        return kept == hour and bool(rows)

    def take(self, stratum: int, hour: int, share: float) -> Sequence[Values]:
        """None, or an odd number up to 7: as many as stable has for each of the canary."""
        kept, rows = self._rows.get(stratum, (hour, []))
        if kept != hour:
            return ()
        most = min(OTHERS, len(rows), max(1, floor((1 - share) / share)))
        count = most - 1 + most % 2
        if count <= 0:
            return ()
        taken = rows[-count:]
        del rows[-count:]
        return taken

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self._rows.values())

    def snapshot(self) -> tuple[tuple[int, int, tuple[Values, ...]], ...]:
        return tuple((stratum, hour, tuple(rows)) for stratum, (hour, rows) in self._rows.items())

    def restore(self, state: Sequence[tuple[int, int, Sequence[Values]]]) -> None:
        self._rows = {stratum: (hour, list(rows)) for stratum, hour, rows in state}


class RankTestState(NamedTuple):
    """All that a `RankTest` knows."""

    bets: tuple[float, ...]
    ratios: tuple[int, ...]
    step_ratios: tuple[int, ...]
    stable: tuple[int, ...]
    others: int


class RankTest:
    """Of one measure. If nothing is wrong a value is as likely to be at any place among the others.

    The alternatives are Lehmann's ("The power of rank tests", 1953): of two values the canary's is greater
    with odds r to 1. With `both`, it may be smaller as well.
    """

    __slots__ = ("_bets", "_factors", "both", "others", "ratios", "stable", "step_ratios")

    def __init__(self, *, both: bool = False) -> None:
        self.both = both
        self._factors = _BOTH if both else _GREATER
        self._bets = Bets(len(self._factors[1][0]))
        self.ratios = of_ratios()
        """Of the canary's values to the median of those that they were compared with."""
        self.step_ratios = of_ratios()
        """Those of this step."""
        self.stable = of_values()
        """The medians that they were compared with."""
        self.others = 0
        """Values of stable that something was compared with."""

    def begin_step(self) -> None:
        self._bets.stake()
        self.step_ratios.clear()

    def add(self, value: float, others: Sequence[float]) -> None:
        """`others`: fresh values of stable, at most 7; of an even number the oldest is left out."""
        count = len(others)
        if not count:
            return
        if count == 1:
            ranked = others
        elif count % 2:
            ranked = sorted(others)
        else:
            count -= 1
            ranked = sorted(others[1:])
        # Equal ones could be in any order: the mean over them is fair again.
        ranks = self._factors[count][bisect_left(ranked, value) : bisect_right(ranked, value) + 1]
        self._bets.settle(ranks[0] if len(ranks) == 1 else _mean_of(ranks))
        middle = ranked[count // 2]
        self.others += count
        cell = self.ratios.cell(value / middle)
        self.ratios.put(cell)
        self.step_ratios.put(cell)
        self.stable.add(middle)

    def snapshot(self) -> RankTestState:
        return RankTestState(
            self._bets.snapshot(),
            self.ratios.snapshot(),
            self.step_ratios.snapshot(),
            self.stable.snapshot(),
            self.others,
        )

    def restore(self, state: RankTestState) -> None:
        self._bets.restore(state.bets)
        self.ratios.restore(state.ratios)
        self.step_ratios.restore(state.step_ratios)
        self.stable.restore(state.stable)
        self.others = state.others


def _mean_of(rows: Sequence[Sequence[float]]) -> Sequence[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def rank_factor(odds: float, count: int, rank: int) -> float:
    """How much likelier place `rank` of 0 to `count` is with these odds than if nothing is wrong.

    (m + 1)! r Gamma(k + r) / (k! Gamma(m + 1 + r)) for place k among m; of one other, 2 r / (1 + r) above it.
    """
    return exp(
        lgamma(count + 2) + log(odds) + lgamma(rank + odds) - lgamma(rank + 1) - lgamma(count + 1 + odds)
    )


_Factors = Mapping[int, Sequence[Sequence[float]]]
_GREATER: Final[_Factors] = {
    count: [[rank_factor(odds, count, rank) for odds in ODDS] for rank in range(count + 1)]
    for count in range(1, OTHERS + 1, 2)
}
"""By how many others and by rank: a factor for each of the odds."""
_BOTH: Final[_Factors] = {
    count: [[*rows[rank], *rows[count - rank]] for rank in range(count + 1)]
    for count, rows in _GREATER.items()
}
"""The same, and for the odds that the canary's is the smaller."""
