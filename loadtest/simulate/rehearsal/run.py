"""The run: sessions are split as the router splits them, and a judge moves the release by what it sees.

The rule: split, lifecycle, judge and evidence are the router's own; only engines and time are simulated.
Once the release is decided nothing more arrives, and what is under way ends.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from loadtest.simulate.faults import Flush, Restart, SlowDown, WorkerCrash
from loadtest.simulate.fleet import Fleet
from loadtest.simulate.rehearsal.defects import Struck
from loadtest.simulate.rehearsal.plan import Rehearsal
from loadtest.simulate.rehearsal.results import Move, Rehearsed
from loadtest.simulate.rehearsal.tally import Tally
from loadtest.simulate.rehearsal.visit import Visit
from loadtest.simulate.results import Served, Slo
from loadtest.simulate.setup import Fault
from loadtest.simulate.timeline import Timeline
from loadtest.simulate.workload import Session, Workload
from policies.release.lifecycle import Command, Phase, moved
from policies.release.split import WHOLE
from router.control.releases.controller import LOOK_S
from router.control.releases.judge import Judge
from router.fleet.routes import Arm
from router.fleet.traffic import split_of
from router.observe.evidence import observation_of

_SOUND: Final = Struck()


class NothingArrives(Exception):
    """No request of the trace can be part of the release; the text says why."""


def rehearse(
    plan: Rehearsal, workload: Workload, slo: Slo, tell: Callable[[], object] = lambda: None
) -> Rehearsed:
    """Until the release is decided or the trace ends; `tell` is called after each request.

    Raises NothingArrives.
    """
    fitting = workload.fitting(plan.most_tokens)
    if not fitting.sessions:
        raise NothingArrives("every request is longer than a replica's memory; see --profile")
    last_s = max(session.starts_s for session in fitting.sessions)
    if last_s < plan.start.at:
        raise NothingArrives(
            f"the release begins at {plan.start.at:g} s, after all of the trace: begin before {last_s:g} s"
        )
    run = _Run(plan, fitting, tell)
    run.run()
    return run.rehearsed(slo, len(workload) - len(fitting))


class _Run:
    """`run` may be called once."""

    def __init__(self, plan: Rehearsal, workload: Workload, tell: Callable[[], object]) -> None:
        self._plan = plan
        self._workload = workload
        self._tell = tell
        self._timeline = Timeline()
        nothing = Workload(workload.name, (), workload.block_tokens)
        self._fleets = {
            version: Fleet(nothing, pool.setup, pool.policy, timeline=self._timeline)
            for version, pool in plan.pools.items()
        }
        self._random = Random(f"{plan.seed}:defects")
        self._release = plan.before
        self._split = split_of(plan.model, plan.settings, plan.before)
        self._judge = Judge(plan.settings, plan.before, 0.0)
        self._tally = Tally(plan.pools)
        self._moves: list[Move] = []
        self._look_at: float | None = None
        self._sessions_left = len(workload.sessions)
        self._under_way = 0
        self._decided_s: float | None = None

    def run(self) -> None:
        for number, session in enumerate(self._workload.sessions):
            name = f"#{number}" if session.name is None else session.name
            self._timeline.at(session.starts_s, self._begin, session, 0, name, session.starts_s)
        self._timeline.at(self._plan.start.at, self._start)
        for fault in self._plan.faults:
            self._timeline.at(fault.at, self._strike, fault)
        self._timeline.run()
        while self._decided_s is None and self._decide():
            """What came last may be enough for a step."""

    def rehearsed(self, slo: Slo, left_out: int) -> Rehearsed:
        plan, tally, verdict = self._plan, self._tally, self._judge.verdict
        return Rehearsed(
            model=plan.model,
            stable=plan.stable,
            version=plan.version,
            defects=plan.defects,
            moves=self._moves,
            phase=self._release.phase,
            finding="" if verdict is None else verdict.reason,
            evidence=self._judge.evidence(),
            starts_s=plan.start.at,
            ended_s=self._timeline.now if self._decided_s is None else self._decided_s,
            results=[tally.result(plan.pools[one], slo) for one in (plan.stable, plan.version)],
            assigned=tally.assigned,
            observed=(tally.observed[False], tally.observed[True]),
            covered=tally.covered,
            errors=tally.errors,
            left_out=left_out,
        )

    # ---- one request's way ----

    def _begin(self, session: Session, index: int, name: str, at: float) -> None:
        if self._decided_s is not None:
            return
        visit, call = self._visit(session, index, name), session.calls[index]
        if visit.version == self._plan.version:
            call = self._plan.defects.answered(call, visit.struck, self._plan.most_tokens)
        self._under_way += 1
        self._fleets[visit.version].ask(call, session.name, at, partial(self._end, visit))

    def _visit(self, session: Session, index: int, name: str) -> Visit:
        """A request keeps what it was assigned to, whatever becomes of the release meanwhile."""
        plan = self._plan
        unit = f"{name}/{index}" if plan.settings.split_by == "request" else name
        drawn, arm = self._split.arm_of(unit), None
        if drawn.compared:
            arm = Arm(self._release.salt, drawn.version, drawn.canary, self._split.canary_share)
        struck = plan.defects.strike(self._random) if drawn.version == plan.version else _SOUND
        return Visit(session, index, name, unit, drawn.version, arm, struck, plan.stable)

    def _end(self, visit: Visit, served: Served) -> None:
        self._under_way -= 1
        ordinal = self._tally.ended(visit, served)
        if served.ok and self._decided_s is None:
            self._see(visit, served, ordinal)
        self._tell()
        session, after = visit.session, visit.index + 1
        if after < len(session.calls):
            at = self._timeline.now + session.calls[after].think_s
            self._timeline.at(at, self._begin, session, after, visit.name, at)
        else:
            self._sessions_left -= 1
        self._stop_if_over()

    def _stop_if_over(self) -> None:
        over = not self._sessions_left if self._decided_s is None else not self._under_way
        if over:
            self._timeline.stop()

    # ---- the release ----

    def _start(self) -> None:
        self._move(self._plan.start, f"every request so far went to {self._plan.stable}")
        self._judge = Judge(self._plan.settings, self._release, self._timeline.now)

    def _see(self, visit: Visit, served: Served, ordinal: int) -> None:
        """As the controller does: failures are looked at without delay, and the rest soon."""
        observation = observation_of(visit.finished(self._plan.model, served, ordinal))
        if observation is None:
            return
        self._judge.observe(observation)
        self._tally.observed[observation.canary] += 1
        self._look_by(self._timeline.now + (0.0 if observation.bad else LOOK_S))

    def _look_by(self, at: float) -> None:
        if self._look_at is None or at < self._look_at:
            self._look_at = at
            self._timeline.at(at, self._look, at)

    def _look(self, at: float) -> None:
        if at == self._look_at:
            self._look_at = None
            self._decide()

    def _decide(self) -> bool:
        """Whether the release was moved."""
        now = self._timeline.now
        if self._decided_s is not None or not self._release.under_way:
            return False
        decided = self._judge.decide(self._release, now)
        if decided is None:
            return False
        self._move(*decided)
        if self._release.phase is not Phase.CANARY:
            self._decided_s = now
            self._stop_if_over()
        return True

    def _move(self, command: Command, reason: str) -> None:
        plan = self._plan
        self._release = moved(self._release, command, plan.ground)
        self._split = split_of(plan.model, plan.settings, self._release)
        weights = {version: 100 * self._split.weights.get(version, 0) / WHOLE for version in plan.pools}
        stable, canary = self._tally.observed
        verb, phase = command.verb.value, self._release.phase.value
        self._moves.append(Move(command.at, verb, phase, weights, stable + canary, canary, reason))
        self._timeline.at(command.at + plan.longest_step_s + LOOK_S, self._decide)

    # ---- what goes wrong on the way ----

    def _strike(self, fault: Fault) -> None:
        for fleet in self._struck_by(fault):
            fault.strike(fleet)

    def _struck_by(self, fault: Fault) -> list[Fleet]:
        """A worker has requests of every version; new replicas are stable's."""
        if isinstance(fault, WorkerCrash):
            return list(self._fleets.values())
        if isinstance(fault, Restart | Flush | SlowDown):
            return [fleet for fleet in self._fleets.values() if fault.replica in fleet.replicas]
        return [self._fleets[self._plan.stable]]
