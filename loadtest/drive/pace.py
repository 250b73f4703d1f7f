"""Whether this machine kept real time: how late the engines' steps were applied.

A late step delays its tokens and lets in whom it should not have; the steps after it are not delayed. Engines
and clients share an event loop, so that a client's lateness is no more than the engines'.
"""

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from loadtest.engine.core import MAX_LAG_S
from loadtest.engine.stats import RequestRecord, StepRecord
from loadtest.simulate.results import quantile


class Lateness(NamedTuple):
    """Seconds; `lost` counts the steps that came so late that their engine's clock was put back."""

    steps: int
    p50_s: float
    p99_s: float
    most_s: float
    lost: int

    def kept_up(self, step_s: float) -> bool:
        """`step_s`: the shortest step. Less than that lets nobody into a step that began before he came."""
        return self.steps > 0 and not self.lost and self.p99_s < step_s


class Pace:
    """An `EngineListener` of all engines: collects how late steps ended and how soon first tokens came."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.first_tokens_s: list[float] = []
        """From a request's arrival at its engine, in the order of the tokens."""
        self._clock = clock
        self._late_s: list[float] = []

    def step_done(self, step: StepRecord) -> None:
        self._late_s.append(self._clock() - step.ended_s)

    def token_times(self, first_s: list[float], gaps_s: list[float]) -> None:  # noqa: ARG002
        self.first_tokens_s += first_s

    def request_done(self, request: RequestRecord) -> None:
        """Clients count those."""

    @property
    def lateness(self) -> Lateness:
        late_s = sorted(self._late_s)
        lost = sum(one > MAX_LAG_S for one in late_s)
        most_s = late_s[-1] if late_s else 0.0
        return Lateness(len(late_s), quantile(late_s, 0.5), quantile(late_s, 0.99), most_s, lost)
