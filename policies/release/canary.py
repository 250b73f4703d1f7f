"""Canary or stable: what the requests of a release prove, and what is to be done about it.

One may look after every request: the chance that a canary as good as stable is taken back is at most
`false_rollback` in all. Nothing is promoted without evidence; what is missing, odd or contradictory holds.
"""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from policies.release.evidence import Evidence
from policies.release.judgement import blamed, open_questions, wrong_ratio
from policies.release.margins import Margins
from policies.release.observation import Observation
from policies.release.sample_ratio import THRESHOLD
from policies.release.samples import Samples, SamplesState

_LAYOUT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryOptions:
    """`[models.M.canary]`. `per_tenant`: where traffic is split by tenant or key, a tenant is one witness."""

    steps: Sequence[float] = (1.0, 5.0, 25.0, 50.0, 100.0)
    min_requests: int = 300
    max_step_s: float = 3600.0
    false_rollback: float = 0.005
    margins: Margins = field(default_factory=Margins)
    per_tenant: bool = False


class Kind(enum.Enum):
    """What is to be done."""

    PROMOTE = "promote"
    """To the next step; from the last one to stable."""
    HOLD = "hold"
    ROLLBACK = "rollback"
    INCONCLUSIVE = "inconclusive"
    """The step took its longest time; a person has to decide."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is for people. `observed`: how many observations it rests on, so that it can be replayed.

    `alarm`: what was observed contradicts the split, and a person should look whatever the kind is.
    """

    kind: Kind
    reason: str
    evidence: tuple[Evidence, ...]
    observed: int
    alarm: bool = False


class Snapshot(NamedTuple):
    """An analysis as it is stored: plain values, at most 200 KiB as JSON."""

    layout: int
    percent: float
    step_at: float
    observed: int
    samples: SamplesState


class Analysis:
    """Of one release, which may be told in any order. It begins with `begin_step`."""

    def __init__(self, options: CanaryOptions) -> None:
        self._options = options
        self._percent = 0.0
        self._step_at = 0.0
        self._observed = 0
        self._samples = Samples(options.false_rollback, per_tenant=options.per_tenant)

    def begin_step(self, percent: float, now: float) -> None:
        """The canary has `percent` of the traffic from now on, seconds since the epoch."""
        self._percent, self._step_at = percent, now
        self._samples.begin_step()

    def observe(self, seen: Observation) -> bool:
        """True if a verdict is worth asking for at once: there may be reason to roll back."""
        self._observed += 1
        return self._samples.add(seen)

    def verdict(self, now: float) -> Verdict:
        """Changes nothing: the same observations give the same verdict. `now` as for `begin_step`."""
        alarm = wrong_ratio(self._samples)
        kind, reason = self._decided(now, alarm)
        return Verdict(kind, reason, self.evidence(), self._observed, alarm is not None)

    def evidence(self) -> tuple[Evidence, ...]:
        """Of every metric, and of the sample ratio."""
        samples, ratio = self._samples, self._samples.ratio
        shares = (ratio.canary / ratio.units, ratio.expected / ratio.units) if ratio.units else (None, None)
        return (
            *(metric.evidence(samples.requests) for metric in samples.events),
            *(measure.evidence() for measure in samples.measures),
            Evidence(
                "sample_ratio", ratio.log_e, THRESHOLD, ratio.canary, ratio.units - ratio.canary, *shares
            ),
        )

    def _decided(self, now: float, alarm: str | None) -> tuple[Kind, str]:
        if not self._percent > 0:
            return Kind.HOLD, "no step has begun"
        against = self._against(alarm)
        if against is not None:
            return Kind.ROLLBACK, against
        left = alarm or "; ".join(self._left())
        if left:
            return self._waits(now), left
        if not -inf < now < inf:
            return Kind.HOLD, "the clock is wrong"
        return Kind.PROMOTE, f"no harm beyond the margins of {self._percent:g} % is possible any more"

    def _against(self, alarm: str | None) -> str | None:
        """A run of failures counts whatever the shares are; all else is a comparison."""
        samples = self._samples
        if samples.guard.fires(samples.baseline.share):
            return f"{samples.guard.run} in a row failed at the canary"
        if alarm is not None:
            return None
        return next(blamed(samples, self._options.margins, self._percent), None)

    def _left(self) -> Iterator[str]:
        margins = self._options.margins.at(self._percent)
        return open_questions(self._samples, margins, self._percent, self._options.min_requests)

    def _waits(self, now: float) -> Kind:
        return Kind.INCONCLUSIVE if now - self._step_at >= self._options.max_step_s else Kind.HOLD

    def snapshot(self) -> Snapshot:
        return Snapshot(_LAYOUT, self._percent, self._step_at, self._observed, self._samples.snapshot())

    def restore(self, state: Snapshot) -> None:
        """Go on where that one was. Raises ValueError if another version of this code has made it."""
        if state.layout != _LAYOUT:
            raise ValueError(f"the evidence has layout {state.layout}, not {_LAYOUT}: begin the step anew")
        self._percent, self._step_at, self._observed = state.percent, state.step_at, state.observed
        self._samples.restore(state.samples)
