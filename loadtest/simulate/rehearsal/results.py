"""What a rehearsal gave: every move of the release, what it rested on, and what clients noticed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.simulate.contender import Result
from loadtest.simulate.rehearsal.defects import Defects
from policies.release.lifecycle import Phase
from router.control.releases.records import Evidence

Errors = Mapping[str, int]
"""By version."""


class Move(NamedTuple):
    """One move. Seconds of virtual time; requests are those that had been observed since the start."""

    at_s: float
    verb: str
    phase: str
    weights: Mapping[str, float]
    """Per cent of the traffic by version, from now on."""
    requests: int
    canary_requests: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """Counts are of the whole run; what was under way at the decision is among them, unless said."""

    model: str
    stable: str
    version: str
    defects: Defects
    moves: Sequence[Move]
    phase: Phase
    finding: str
    """What the last evaluation said: the reason of the decision, or what is missing for the next step."""
    evidence: Sequence[Evidence]
    starts_s: float
    ended_s: float
    """When it was decided, or when the trace ended."""
    results: Sequence[Result]
    """What stable and what the canary answered."""
    assigned: Mapping[str, int]
    """Requests by the version that they were drawn for."""
    observed: tuple[int, int]
    """Stable's and the canary's that the decision rests on."""
    covered: int
    """Failed at the canary before their first token, and were answered by stable."""
    errors: Errors
    """Answers that broke off, by the version that they came from: what clients saw."""
    left_out: int
    """Longer than a replica's memory."""

    @property
    def decided(self) -> bool:
        return self.phase is not Phase.CANARY

    @property
    def percent(self) -> float:
        """What the canary had last, while there was a choice."""
        return self.shares[-1]

    @property
    def shares(self) -> Sequence[float]:
        """Per cent of the traffic that the canary had, step by step."""
        return [move.weights[self.version] for move in self.moves if move.verb in ("start", "step")]
