"""Tests that may be looked at after every event: money is put on "the canary is worse", at fair odds.

If nothing is wrong the money does not grow on average, whenever one stops: it reaches 1 / alpha with
probability alpha at most (Ville's inequality; Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics
and safe anytime-valid inference", 2023). So a look costs nothing, and the money is the evidence.
"""

from collections.abc import Sequence
from math import log
from operator import mul
from typing import Final

RISKS: Final = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""How many times as likely as at stable something may be; the money is spread over these."""
_FIRST: Final = 2 / 3
_LATER: Final = 1 / 2
_MOST: Final = 1e200
_LEAST: Final = 1e-200


class Bets:
    """Starts with 1, all of it in reserve. `stake` puts some of it on the alternatives, evenly.

    Every step of a release stakes anew: an alternative that lost its money in quiet steps has some when
    trouble begins late. The first time it is two thirds, since most trouble is there from the beginning,
    and half of what is left each time after.
    """

    __slots__ = ("_reserve", "_stakes", "money")

    def __init__(self, alternatives: int) -> None:
        self._reserve = 1.0
        self._stakes = [0.0] * alternatives
        self.money = 1.0
        """All there is: the e-value."""

    def stake(self) -> None:
        staked = self._reserve * (_FIRST if self._reserve == 1 else _LATER)
        self._reserve -= staked
        each = staked / len(self._stakes)
        self._stakes = [stake + each for stake in self._stakes]
        self.money = self._reserve + sum(self._stakes)

    def settle(self, factors: Sequence[float]) -> None:
        """One event: what each alternative multiplies its money by. Their mean is 1 if nothing is wrong."""
        self._stakes = list(map(mul, self._stakes, factors))
        self.money = self._reserve + sum(self._stakes)
        # Infinity could not be stored; less money than was won proves less, and never too much.
        if self.money > _MOST:
            self.restore([self._reserve, *(min(stake, _MOST) for stake in self._stakes)])

    @property
    def log_e(self) -> float:
        """Its natural logarithm."""
        return log(max(self.money, _LEAST))

    def snapshot(self) -> tuple[float, ...]:
        return (self._reserve, *self._stakes)

    def restore(self, state: Sequence[float]) -> None:
        self._reserve, *self._stakes = state
        self.money = self._reserve + sum(self._stakes)


class ArmsTest:
    """Do more events come from the canary than its share? Only events count, no rate has to be known.

    Of an event that is as likely in both arms the canary has its share w; where it is r times as likely
    there, the canary has w r / (1 - w + w r). With `both`, too few of them are evidence as well.
    """

    __slots__ = ("_bets", "_of_canary", "_of_stable", "_risks", "_share")

    def __init__(self, risks: Sequence[float] = RISKS, *, both: bool = False) -> None:
        self._risks = (*risks, *(1 / risk for risk in risks)) if both else tuple(risks)
        self._bets = Bets(len(self._risks))
        self._share = 0.0
        self._of_canary: Sequence[float] = ()
        self._of_stable: Sequence[float] = ()

    @property
    def money(self) -> float:
        """The e-value."""
        return self._bets.money

    @property
    def log_e(self) -> float:
        return self._bets.log_e

    def stake(self) -> None:
        self._bets.stake()

    def add(self, canary: bool, share: float) -> None:
        """One event. `share` is the canary's, above 0; a share of 1 teaches nothing."""
        if share != self._share:
            self._share = share
            self._of_stable = [1 / (1 - share + share * risk) for risk in self._risks]
            self._of_canary = [
                risk * factor for risk, factor in zip(self._risks, self._of_stable, strict=True)
            ]
        self._bets.settle(self._of_canary if canary else self._of_stable)

    def snapshot(self) -> tuple[float, ...]:
        return self._bets.snapshot()

    def restore(self, state: Sequence[float]) -> None:
        self._bets.restore(state)
