"""All that an analysis remembers of a release: so much, however many requests there are.

A hundred and some kilobytes, most of it which units have been counted; `Seen` and `Marked` say what happens
when these are full.
"""

from collections.abc import Sequence
from math import inf
from typing import Final, NamedTuple

from policies.release.baseline import Baseline
from policies.release.event_metric import ERROR, FINISH, QUALITY, EventMetric, EventState
from policies.release.guard import Guard
from policies.release.observation import Bad, Observation
from policies.release.rank_test import RankTestState, Strata, Values, stratum_of, values_of
from policies.release.sample_ratio import SampleRatio
from policies.release.units import Seen
from policies.release.value_metric import ValueMetric

COLD: Final = 50
"""The first requests of a replica, whose values are not compared: it has an empty cache."""
ERRORS_PART: Final = 0.5
OTHERS_PART: Final = 0.1
"""Of the accepted chance of a false rollback: half is for errors, the rest in equal parts for five others."""
_STEPS: Final = 256
_HOUR_S: Final = 3600


class SamplesState(NamedTuple):
    """All that `Samples` know. Pairs are stable's and the canary's."""

    requests: tuple[int, int]
    step_requests: tuple[int, int]
    odd: int
    step: int
    offered: tuple[int, ...]
    events: tuple[EventState, ...]
    measures: tuple[RankTestState, ...]
    strata: tuple[tuple[int, int, tuple[Values, ...]], ...]
    compared: tuple[bytes, bytes]
    ratio: tuple[bytes, tuple[float, ...], int, int, float]
    baseline: tuple[str, int, int, int]
    guard: tuple[tuple[int, ...], int, int]


class Samples:
    """`per_tenant`: a tenant is one unit, for splits that keep all its requests in one arm.

    `alpha`: the accepted chance of a false rollback, over all metrics together.
    """

    def __init__(self, alpha: float, *, per_tenant: bool) -> None:
        self._per_tenant = per_tenant
        self.requests = [0, 0]
        """Stable's and the canary's, of the whole release."""
        self.step_requests = [0, 0]
        self.odd = 0
        """Observations at this step that cannot be true; they are not counted."""
        self._step = 0
        self.errors = EventMetric("error", ERRORS_PART * alpha)
        self.events = (
            self.errors,
            EventMetric("quality", OTHERS_PART * alpha),
            EventMetric("finish", OTHERS_PART * alpha),
        )
        self.measures = (
            ValueMetric("time_to_first_token", OTHERS_PART * alpha),
            ValueMetric("inter_token", OTHERS_PART * alpha),
            ValueMetric("completion_tokens", OTHERS_PART * alpha, both=True),
        )
        self.offered = [0] * (1 + len(self.measures))
        """Of stable's at this step: how many could be compared, and how many of them have each measure."""
        self._strata = Strata()
        self._compared = (Seen(), Seen())
        self.ratio = SampleRatio()
        self.baseline = Baseline()
        self.guard = Guard()

    def begin_step(self) -> None:
        """What is judged by the step starts anew; evidence against the canary stays."""
        self._step = (self._step + 1) % _STEPS
        self.step_requests = [0, 0]
        self.odd = 0
        self.offered = [0] * len(self.offered)
        for metric in self.events + self.measures:
            metric.begin_step()
        for seen in self._compared:
            seen.clear()
        self.ratio.begin_step()
        self.guard.clear()

    def add(self, seen: Observation) -> bool:
        """True if there may be reason to take the canary back: worth a verdict now."""
        if not (0 < seen.share < 1 or (seen.share == 1 and seen.canary)) or not -inf < seen.at < inf:
            self.odd += 1
            return False
        unit = seen.tenant if self._per_tenant else seen.unit
        self.requests[seen.canary] += 1
        self.step_requests[seen.canary] += 1
        failed = bool(seen.bad) and not ERROR.isdisjoint(seen.bad)
        if seen.canary:
            self.guard.canary(unit, failed)
        else:
            self.guard.stable(failed)
            self.baseline.add(failed)
        due = bool(seen.bad) and self._add_bad(seen, unit)
        if seen.share < 1:
            self.ratio.add(unit, seen.canary, seen.share)
            due |= self._compare(seen, unit)
        return due

    def _add_bad(self, seen: Observation, unit: int) -> bool:
        due = seen.canary and self.guard.fires(self.baseline.share)
        for metric, kinds in zip(self.events, _KINDS, strict=True):
            if not kinds.isdisjoint(seen.bad):
                due |= metric.add(unit, self._step, seen.canary, seen.share)
        return due

    def _compare(self, seen: Observation, unit: int) -> bool:
        """A unit's first values at this step: stable's are kept, the canary's are ranked among them."""
        if seen.ordinal < COLD:
            return False
        values, stratum, hour = values_of(seen), stratum_of(seen), int(seen.at // _HOUR_S)
        if values == _NOTHING or (seen.canary and not self._strata.holds(stratum, hour)):
            return False
        if not self._compared[seen.canary].first(unit):
            return False
        if seen.canary:
            return self._rank(values, self._strata.take(stratum, hour, seen.share))
        self._strata.keep(stratum, hour, values)
        self.offered[0] += 1
        for number, value in enumerate(values, 1):
            self.offered[number] += value is not None
        return False

    def _rank(self, values: Values, rows: Sequence[Values]) -> bool:
        due = False
        for number, (metric, value) in enumerate(zip(self.measures, values, strict=True)):
            if value is not None:
                others = [other for row in rows if (other := row[number]) is not None]
                due |= metric.heard(value, others)
        return due

    def snapshot(self) -> SamplesState:
        return SamplesState(
            (self.requests[0], self.requests[1]),
            (self.step_requests[0], self.step_requests[1]),
            self.odd,
            self._step,
            tuple(self.offered),
            tuple(metric.snapshot() for metric in self.events),
            tuple(metric.snapshot() for metric in self.measures),
            self._strata.snapshot(),
            (self._compared[0].snapshot(), self._compared[1].snapshot()),
            self.ratio.snapshot(),
            self.baseline.snapshot(),
            self.guard.snapshot(),
        )

    def restore(self, state: SamplesState) -> None:
        self.requests, self.step_requests = list(state.requests), list(state.step_requests)
        self.odd, self._step, self.offered = state.odd, state.step, list(state.offered)
        for metric, events in zip(self.events, state.events, strict=True):
            metric.restore(events)
        for measure, values in zip(self.measures, state.measures, strict=True):
            measure.restore(values)
        self._strata.restore(state.strata)
        for seen, bits in zip(self._compared, state.compared, strict=True):
            seen.restore(bits)
        self.ratio.restore(state.ratio)
        self.baseline.restore(state.baseline)
        self.guard.restore(state.guard)


_KINDS: Final[Sequence[frozenset[Bad]]] = (ERROR, QUALITY, FINISH)
_NOTHING: Final = Values(None, None, None)
