"""One release from its first step to its end, with the shipped analyser and the default options."""

from random import Random
from typing import Final, NamedTuple

from loadtest.release.cells import Cell
from loadtest.release.rivals import RIVALS
from loadtest.release.traffic import REQUESTS_PER_S, Traffic
from policies.release.canary import Analysis, CanaryOptions, Kind, Verdict

_LOOK_EVERY: Final = 50
"""Requests of the canary from one look to the next; after evidence against it one looks at once."""
ALL: Final = 100.0


class Trial(NamedTuple):
    """How a release ended: `kind` is `HOLD` where the requests ran out."""

    kind: Kind
    canary_requests: int
    requests: int
    percent: float
    """The step at which it ended."""
    reason: str
    rivals: tuple[bool, ...]
    """Which of the rivals would have taken it back by then."""


class _Ramp:
    """The analyser, moved from step to step by its own verdicts."""

    def __init__(self, options: CanaryOptions) -> None:
        self._steps = options.steps
        self._step = 0
        self.analysis = Analysis(options)
        self.analysis.begin_step(options.steps[0], 0.0)

    @property
    def percent(self) -> float:
        return self._steps[self._step]

    def look(self, now: float) -> Verdict | None:
        """The verdict that ends the release, if this one does."""
        verdict = self.analysis.verdict(now)
        if verdict.kind is Kind.HOLD:
            return None
        if verdict.kind is Kind.PROMOTE and self._step + 1 < len(self._steps):
            self._step += 1
            self.analysis.begin_step(self.percent, now)
            return None
        return verdict


def run(cell: Cell, seed: int, requests: int) -> Trial:
    """The same seed gives the same release."""
    traffic = Traffic(cell.witness, cell.defect, Random(f"{cell.name}:{seed}"))
    ramp = _Ramp(CanaryOptions(steps=cell.steps, per_tenant=cell.per_tenant))
    rivals = [rival() for rival in RIVALS.values()] if cell.rivals else []
    canaries = 0
    for number in range(1, requests + 1):
        seen = traffic.next(ramp.percent / ALL)
        for rival in rivals:
            rival.observe(seen)
        due = ramp.analysis.observe(seen)
        canaries += seen.canary
        if due or (seen.canary and canaries % _LOOK_EVERY == 0):
            end = ramp.look(number / REQUESTS_PER_S)
            if end is not None:
                break
    else:
        end = ramp.analysis.verdict(number / REQUESTS_PER_S)
    alarms = tuple(rival.alarmed for rival in rivals)
    return Trial(end.kind, canaries, number, ramp.percent, end.reason, alarms)
