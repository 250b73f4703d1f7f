"""Bad events of one group: whether the canary has more of them than its share, and how many more at most."""

from collections.abc import Sequence
from math import log
from typing import Final, NamedTuple

from policies.release.betting import ArmsTest
from policies.release.evidence import Evidence
from policies.release.harm import Tally, least_added, most_added
from policies.release.observation import Bad
from policies.release.units import Marked

ERROR: Final = frozenset({Bad.ERROR, Bad.STREAM_ERROR, Bad.TIMEOUT})
QUALITY: Final = frozenset({Bad.EMPTY, Bad.TOOL_JSON, Bad.REPETITION})
FINISH: Final = frozenset({Bad.LENGTH, Bad.CONTENT_FILTER, Bad.CLIENT_LEFT})
"""What answers end with in good health too, only more often when something is wrong."""
_ENOUGH: Final = 5
"""Bad units; before that a step's own share is chance."""


class EventState(NamedTuple):
    """All that an `EventMetric` knows. Pairs are stable's and the canary's."""

    test: tuple[float, ...]
    marked: bytes
    bad: tuple[int, int]
    units: tuple[int, int]
    step_bad: tuple[int, int]
    step_units: tuple[int, int]


class EventMetric:
    """`alpha`: accepted chance that it speaks against a canary that is as good as stable.

    Requests are counted by whoever owns it, once for all groups: lists of stable's and the canary's.
    """

    __slots__ = ("_bad", "_enough", "_marked", "_step_bad", "_step_units", "_test", "_units", "name")

    def __init__(self, name: str, alpha: float) -> None:
        self.name = name
        self._enough = 1 / alpha
        self._test = ArmsTest()
        self._marked = Marked()
        self._bad, self._units = [0, 0], [0, 0]
        self._step_bad, self._step_units = [0, 0], [0, 0]

    def begin_step(self) -> None:
        self._test.stake()
        self._step_bad, self._step_units = [0, 0], [0, 0]

    def add(self, unit: int, step: int, canary: bool, share: float) -> bool:
        """One bad request. True if there is enough evidence against the canary."""
        self._bad[canary] += 1
        self._step_bad[canary] += 1
        first, first_of_step = self._marked.mark(unit, step)
        if first_of_step:
            self._step_units[canary] += 1
        if not first:
            return False
        self._units[canary] += 1
        self._test.add(canary, share)
        return self.speaks

    @property
    def speaks(self) -> bool:
        """Whether there is enough evidence against the canary."""
        return self._test.money >= self._enough

    def evidence(self, requests: Sequence[int]) -> Evidence:
        """Of the whole release."""
        stable, canary = self._tallies(requests)
        return Evidence(
            self.name,
            self._test.log_e,
            log(self._enough),
            canary.requests,
            stable.requests,
            canary.share if canary.requests else None,
            stable.share if stable.requests else None,
        )

    def harmful(self, requests: Sequence[int], step_requests: Sequence[int], margin: float) -> bool:
        """Whether the canary's added share is beyond the margin, as far as one can see: now or all along."""
        stable, canary = self._tallies(requests)
        now_stable, now_canary = self._step_tallies(step_requests)
        now = now_canary.units >= _ENOUGH and now_canary.share - now_stable.share > margin
        return now or canary.share - stable.share > margin

    def most_added(self, requests: Sequence[int], step_requests: Sequence[int], *, alone: bool) -> float:
        """Of bad requests at this step. `alone`: stable has no traffic; what it did before has to do."""
        stable, canary = self._step_tallies(step_requests)
        before = self._tallies(requests)[0]
        return most_added(canary, before if alone else stable, self._clusters())

    def least_added(self, requests: Sequence[int], step_requests: Sequence[int]) -> float:
        """Of bad requests at this step, beside what stable did before."""
        return least_added(self._step_tallies(step_requests)[1], self._tallies(requests)[0], self._clusters())

    def step_shares(self, requests: Sequence[int], step_requests: Sequence[int]) -> tuple[float, float]:
        """The canary's share of bad requests at this step, and stable's of the whole release."""
        return self._step_tallies(step_requests)[1].share, self._tallies(requests)[0].share

    def _tallies(self, requests: Sequence[int]) -> tuple[Tally, Tally]:
        stable, canary = map(Tally, requests, self._bad, self._units)
        return stable, canary

    def _step_tallies(self, requests: Sequence[int]) -> tuple[Tally, Tally]:
        stable, canary = map(Tally, requests, self._step_bad, self._step_units)
        return stable, canary

    def _clusters(self) -> float:
        return self._bad[False] / self._units[False] if self._units[False] else 1.0

    def snapshot(self) -> EventState:
        return EventState(
            self._test.snapshot(),
            self._marked.snapshot(),
            (self._bad[0], self._bad[1]),
            (self._units[0], self._units[1]),
            (self._step_bad[0], self._step_bad[1]),
            (self._step_units[0], self._step_units[1]),
        )

    def restore(self, state: EventState) -> None:
        self._test.restore(state.test)
        self._marked.restore(state.marked)
        self._bad, self._units = list(state.bad), list(state.units)
        self._step_bad, self._step_units = list(state.step_bad), list(state.step_units)
