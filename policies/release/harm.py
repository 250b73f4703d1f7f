"""How much worse the canary can be at most, given what was seen: what a promotion has to know.

Bounds hold at all times together, whenever one looks. They come from a test of each share p: how much
likelier is what was seen if the share is drawn from a Beta distribution than if it is p (the method of
mixtures: Robbins, "Statistical methods related to the law of the iterated logarithm", 1970).
"""

from math import inf, lgamma, log
from typing import Final, NamedTuple

ALPHA: Final = 0.005
"""Accepted chance that harm beyond its margin is ruled out although it is there."""
_OF_CANARY: Final = log(1 / (0.8 * ALPHA))
_OF_STABLE: Final = log(1 / (0.2 * ALPHA))
"""Stable has more requests, so the smaller part of the chance does for it."""
_ROUNDS: Final = 40
_PRIOR_CLUSTERS: Final = 10


class Prior(NamedTuple):
    """A Beta distribution: where shares are expected."""

    a: float
    b: float


_RARE: Final = Prior(0.5, 10.0)
_EVEN: Final = Prior(10.0, 10.0)


def log_against(share: float, bad: int, count: int, prior: Prior = _RARE) -> float:
    """The natural logarithm of the e-value against this share, `bad` of `count` having been bad."""
    a, b = prior
    good = count - bad
    if (share <= 0 and bad) or (share >= 1 and good):
        return inf
    mixed = _log_beta(a + bad, b + good) - _log_beta(a, b)
    expected = (bad * log(share) if bad else 0.0) + (good * log(1 - share) if good else 0.0)
    return mixed - expected


def upper(bad: int, count: int, threshold: float = _OF_CANARY) -> float:
    """The greatest share that is not ruled out."""
    low, high = (bad / count if count else 1.0), 1.0
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if log_against(middle, bad, count) < threshold:
            low = middle
        else:
            high = middle
    return high


def lower(bad: int, count: int, threshold: float = _OF_STABLE) -> float:
    """The smallest share that is not ruled out."""
    low, high = 0.0, (bad / count if count else 0.0)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if log_against(middle, bad, count) < threshold:
            high = middle
        else:
            low = middle
    return low


def mostly_below(above: int, count: int) -> bool:
    """Whether it is ruled out that half or more of these are above: the median is below then."""
    return 2 * above < count and log_against(0.5, above, count, _EVEN) >= log(1 / ALPHA)


class Tally(NamedTuple):
    """One arm: its requests, the bad ones among them, and the units that those came from."""

    requests: int
    bad: int
    units: int

    @property
    def share(self) -> float:
        return self.bad / self.requests if self.requests else 0.0


def most_added(canary: Tally, stable: Tally, clusters: float) -> float:
    """By how much the canary's share of bad requests exceeds stable's at most.

    Units are what is counted, since requests of one unit fail together; `clusters` is how many bad requests
    a bad unit of stable's has, and what a share of units is multiplied by.
    """
    above = _own_clusters(canary, clusters) * upper(canary.units, canary.requests, _OF_CANARY)
    return above - clusters * lower(stable.units, stable.requests, _OF_STABLE)


def least_added(canary: Tally, stable: Tally, clusters: float) -> float:
    """By how much it does at least."""
    above = _own_clusters(canary, clusters) * lower(canary.units, canary.requests, _OF_CANARY)
    return above - clusters * upper(stable.units, stable.requests, _OF_STABLE)


def _own_clusters(canary: Tally, clusters: float) -> float:
    """As stable's, until the canary has bad units enough of its own."""
    return (canary.bad + _PRIOR_CLUSTERS * clusters) / (canary.units + _PRIOR_CLUSTERS)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
