"""One measure of answers: whether the canary's values are greater, and whether by more than is tolerated."""

from collections.abc import Sequence
from math import log
from typing import Final

from policies.release.evidence import Evidence
from policies.release.harm import mostly_below
from policies.release.histogram import Histogram
from policies.release.rank_test import RankTest

_ENOUGH: Final = 20
"""Values; before that a step's own median is chance."""


class ValueMetric(RankTest):
    """`alpha`: accepted chance that it speaks against a canary that is as good as stable.

    Ratios are the canary's values to stable's in the same stratum. With `both`, they may be too small too.
    """

    __slots__ = ("_enough", "name")

    def __init__(self, name: str, alpha: float, *, both: bool = False) -> None:
        super().__init__(both=both)
        self.name = name
        self._enough = 1 / alpha

    def heard(self, value: float, others: Sequence[float]) -> bool:
        """One value. True if there is enough evidence against the canary."""
        self.add(value, others)
        return self.speaks

    @property
    def speaks(self) -> bool:
        """Whether there is enough evidence against the canary."""
        return self._bets.money >= self._enough

    def evidence(self) -> Evidence:
        """Of the whole release."""
        ratio, stable = self.ratios.median(), self.stable.median()
        count = self.ratios.count
        canary = None if ratio is None or stable is None else ratio * stable
        return Evidence(self.name, self._bets.log_e, log(self._enough), count, self.others, canary, stable)

    def harmful(self, margin: float) -> bool:
        """Whether the median ratio is beyond the margin, as far as one can see: at this step or all along."""
        enough = self.step_ratios.count >= _ENOUGH
        return self._beyond(self.ratios, margin) or (enough and self._beyond(self.step_ratios, margin))

    def _beyond(self, ratios: Histogram, margin: float) -> bool:
        if 2 * ratios.at_least(margin) > ratios.count:
            return True
        return self.both and 2 * ratios.at_least(1 / margin) < ratios.count

    def ruled_out(self, margin: float) -> bool:
        """Whether at this step a median ratio beyond the margin is."""
        ratios = self.step_ratios
        if not mostly_below(ratios.at_least(margin), ratios.count):
            return False
        return not self.both or mostly_below(ratios.count - ratios.at_least(1 / margin), ratios.count)
