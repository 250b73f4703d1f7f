"""Is the canary slower, or are its answers of another length? Each value is ranked among like ones of stable.

Like: the same hour, as many prompt tokens to compute, as great a share of them cached. A canary starts with
an empty cache, and whoever compares its times as they are finds every canary slow.
"""

from collections.abc import Sequence
from math import exp, floor, inf, lgamma, log
from typing import Final, NamedTuple

from policies.release.betting import RISKS, Bets
from policies.release.histogram import of_ratios, of_values
from policies.release.observation import Observation

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
    return Values(
        _sound(seen.time_to_first_token_s), _sound(seen.inter_token_s), _sound(seen.completion_tokens)
    )


def _sound(value: float | None) -> float | None:
    return value if value is not None and 0 < value < inf else None


def stratum_of(seen: Observation) -> int:
    """3 times the power of two that the uncached prompt tokens are below, and the third that is cached."""
    prompt, cached = seen.prompt_tokens, seen.cached_tokens or 0
    if prompt is None or prompt <= 0:
        return 0
    cached = min(max(cached, 0), prompt)
    bucket = min((prompt - cached).bit_length(), _LARGEST_BUCKET)
    return 3 * (bucket + 1) + min(3 * cached // prompt, 2)


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

    __slots__ = ("_bets", "both", "others", "ratios", "stable", "step_ratios")

    def __init__(self, *, both: bool = False) -> None:
        self.both = both
        self._bets = Bets(2 * len(RISKS) if both else len(RISKS))
        self.ratios = of_ratios()
        """Of the canary's values to the median of those that they were compared with."""
        self.step_ratios = of_ratios()
        """Those of this step."""
        self.stable = of_values()
        """The medians that they were compared with."""
        self.others = 0
        """Values of stable that something was compared with."""

    @property
    def log_e(self) -> float:
        return self._bets.log_e

    def begin_step(self) -> None:
        self._bets.stake()
        self.step_ratios.clear()

    def add(self, value: float, others: Sequence[float]) -> None:
        """`others`: fresh values of stable, at most 7; of an even number the oldest is left out."""
        ranked = sorted(others if len(others) % 2 else others[1:])
        if not ranked:
            return
        count = len(ranked)
        below = sum(other < value for other in ranked)
        above = sum(other > value for other in ranked)
        factors = _FACTORS[count]
        # Equal ones could be in any order: the mean over them is fair again.
        self._bets.settle(self._mean(factors, count, below, count - above))
        middle = ranked[count // 2]
        self.others += count
        self.ratios.add(value / middle)
        self.step_ratios.add(value / middle)
        self.stable.add(middle)

    def _mean(
        self, factors: Sequence[Sequence[float]], count: int, lowest: int, highest: int
    ) -> Sequence[float]:
        mean = _mean_of(factors[lowest : highest + 1])
        return [*mean, *_mean_of(factors[count - highest : count - lowest + 1])] if self.both else mean

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
    if len(rows) == 1:
        return rows[0]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def rank_factor(risk: float, count: int, rank: int) -> float:
    """How much likelier place `rank` of 0 to `count` is if the odds are `risk` than if nothing is wrong.

    (m + 1)! r Gamma(k + r) / (k! Gamma(m + 1 + r)) for place k among m; of one other, 2 r / (1 + r) above it.
    """
    return exp(
        lgamma(count + 2) + log(risk) + lgamma(rank + risk) - lgamma(rank + 1) - lgamma(count + 1 + risk)
    )


_FACTORS: Final = {
    count: [[rank_factor(risk, count, rank) for risk in RISKS] for rank in range(count + 1)]
    for count in range(1, OTHERS + 1, 2)
}
"""By how many others and by rank: a factor for each risk."""
