"""Quantiles of positive numbers in bounded memory: counts in buckets whose bounds grow by a constant ratio.

After DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019), with
fixed ends: a quantile is off by `ACCURACY` of its own value at most, and two histograms add up exactly.
"""

from dataclasses import dataclass, field
from math import log
from typing import Final

ACCURACY: Final = 0.01
LEAST: Final = 1e-5
MOST: Final = 1e6
"""What is below or above counts as these: from a microsecond's fraction to a million tokens."""
_GAMMA: Final = (1 + ACCURACY) ** 2
_LOG_GAMMA: Final = log(_GAMMA)


@dataclass(slots=True)
class LogHistogram:
    """At most some 1,270 buckets, of which those that are empty take no room."""

    counts: dict[int, int] = field(default_factory=dict)
    """By bucket: number i holds what is nearest to `gamma ** i`, by ratio; so 1 is told as 1."""

    def add(self, value: float) -> None:
        bucket = round(log(min(max(value, LEAST), MOST)) / _LOG_GAMMA)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def merge(self, other: "LogHistogram") -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def quantile(self, share: float) -> float | None:
        """The value that `share` of all, 0 to 1, do not exceed; None of nothing."""
        rank, below = share * (self.total - 1), 0
        for bucket in sorted(self.counts):
            below += self.counts[bucket]
            if below > rank:
                return _GAMMA**bucket
        return None
