"""A virtual replica: the engines' own scheduler and cache, stepped by a timeline instead of by a clock.

The rule: what is done at once may differ in nothing from what would be done step by step. A run of equal
decode steps is one event; an arrival cuts it at the end of the step under way, when an engine would see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from loadtest.engine.host_tier import HostTier
from loadtest.engine.kv_cache import KvCache
from loadtest.engine.latency import StepLoad
from loadtest.engine.scheduler import Scheduler
from loadtest.engine.step import Step
from loadtest.simulate.hardware import Hardware
from loadtest.simulate.sequence import VirtualSequence
from loadtest.simulate.timeline import Timeline

Heard = Callable[[VirtualSequence], None]


class Load(NamedTuple):
    """What the replica says of itself when scraped, as of the end of its last step."""

    running_requests: float
    waiting_requests: float
    kv_usage_ratio: float
    kv_capacity_tokens: float


class _Run(NamedTuple):
    """Equal steps in a row, under way."""

    step: Step[VirtualSequence]
    began_s: float
    steps: int
    slowdown: float


class VirtualReplica:
    """One engine. `on_first` and `on_end` are told of first tokens and of requests that are complete."""

    def __init__(
        self,
        id_: str,
        hardware: Hardware,
        block_tokens: int,
        timeline: Timeline,
        *,
        fast_forward: bool = True,
    ) -> None:
        self.id = id_
        self.hardware = hardware
        self.block_tokens = block_tokens
        self._slowdown = 1.0
        self.on_first: Heard = _ignore
        self.on_end: Heard = _ignore
        self.busy_s = 0.0
        self._timeline = timeline
        self._fast_forward = fast_forward
        self._run: _Run | None = None
        self._turn = 0
        self._begins = False
        self.scheduler = self._empty()

    def _empty(self) -> Scheduler[VirtualSequence]:
        hardware, size = self.hardware, self.block_tokens
        tier = HostTier(hardware.host_tokens // size) if hardware.host_tokens else None
        return Scheduler(hardware.limits, KvCache(hardware.kv_tokens // size, size), tier)

    def submit(self, sequence: VirtualSequence) -> None:
        """Queue it. Raises ValueError if it could not be held even alone."""
        self.scheduler.add(sequence)
        if self._run is None:
            self._begin_soon()
        elif self._run.steps > 1:
            self._cut(self._run)

    def end(self, sequence: VirtualSequence) -> None:
        """Its client has left: what it holds is free at once."""
        if self._run is not None and self._run.steps > 1:
            self._catch_up(self._run)
        self.scheduler.end(sequence, "abort")

    def slow_down(self, factor: float) -> None:
        """Every step takes `factor` times its time, from the next one on."""
        if self._run is not None and self._run.steps > 1:
            self._cut(self._run)
        self._slowdown = factor

    def lose_cache(self) -> None:
        """Flush what is cached, host memory included; requests go on."""
        self.scheduler.cache.lose()

    def restart(self) -> list[VirtualSequence]:
        """Lose everything; the requests that die with it."""
        lost = self.scheduler.running + self.scheduler.waiting
        listeners = [one for one in self.scheduler.cache.listeners if not isinstance(one, HostTier)]
        self.scheduler.cache.lose()
        self.scheduler = self._empty()
        self.scheduler.cache.listeners += listeners
        self._run = None
        self._turn += 1
        return lost

    def load(self) -> Load:
        scheduler, cache = self.scheduler, self.scheduler.cache
        usage = 1 - cache.free / cache.num_blocks
        running, waiting = len(scheduler.running), len(scheduler.waiting)
        return Load(running, waiting, usage, self.hardware.kv_tokens)

    # ---- what only an oracle can see ----

    @property
    def slowdown(self) -> float:
        return self._slowdown

    def known(self, hashes: Sequence[int], tokens: int) -> tuple[int, int]:
        """Tokens of a prompt that it would not compute, and how many of those it would copy in."""
        size = self.block_tokens
        hashes = hashes[: (tokens - 1) // size]
        found = len(self.scheduler.cache.find(hashes))
        tier = self.scheduler.tier
        loaded = 0 if tier is None else tier.find(hashes[found:])
        return (found + loaded) * size, loaded * size

    def step_left_s(self) -> float:
        """Until the end of the step under way."""
        run = self._run
        if run is None:
            return 0.0
        return max(0.0, self._end_of(run, self._step_under_way(run)) - self._timeline.now)

    def unfinished_prefills(self) -> list[tuple[VirtualSequence, int]]:
        """Who will still have prompt left after the step under way, and how much will be computed by then."""
        under_way = dict(self._run.step.chunks) if self._run is not None else {}
        scheduler = self.scheduler
        after = [(one, one.computed + under_way.get(one, 0)) for one in scheduler.running]
        left = [(one, computed) for one, computed in after if computed < one.prompt_tokens]
        return left + [(one, 0) for one in scheduler.waiting]

    def decode_load(self) -> StepLoad:
        """Of a step in which everybody who is in the batch decodes."""
        running = self.scheduler.running
        return StepLoad(0, 0, len(running), sum([one.length for one in running]))

    # ---- steps ----

    def _begin_soon(self) -> None:
        """On the next turn, so that requests of one instant share their first step."""
        if not self._begins:
            self._begins = True
            self._timeline.at(self._timeline.now, self._begin_if_idle)

    def _begin_if_idle(self) -> None:
        self._begins = False
        if self._run is None:
            self._begin()

    def _begin(self) -> None:
        now = self._timeline.now
        step = self.scheduler.schedule(now)
        if step is None:
            self._run = None
            return
        steps = self.scheduler.repeatable(step) if self._fast_forward else 1
        self._wait_for(_Run(step, now, steps, self._slowdown))

    def _wait_for(self, run: _Run) -> None:
        self._run = run
        self._turn += 1
        self._timeline.at(self._end_of(run, run.steps), self._finish, self._turn)

    def _end_of(self, run: _Run, steps: int) -> float:
        return run.began_s + self.hardware.latency.run_s(run.step.load, steps) * run.slowdown

    def _step_under_way(self, run: _Run) -> int:
        elapsed_s = (self._timeline.now - run.began_s) / run.slowdown
        return min(run.steps, self.hardware.latency.steps_in(run.step.load, elapsed_s))

    def _cut(self, run: _Run) -> None:
        """End the run with the step that is under way now."""
        steps = self._step_under_way(run)
        if steps < run.steps:
            self._wait_for(run._replace(steps=steps))

    def _catch_up(self, run: _Run) -> None:
        """Apply the steps that are over, and be in the one under way."""
        past = self._step_under_way(run) - 1
        if past:
            began_s, load = self._end_of(run, past), run.step.load
            self.busy_s += began_s - run.began_s
            self.scheduler.complete(run.step, began_s, past)
            grown = replace(load, context_tokens=load.context_tokens + past * load.decodes)
            run = run._replace(step=replace(run.step, load=grown), began_s=began_s)
        self._wait_for(run._replace(steps=1))

    def _finish(self, turn: int) -> None:
        run = self._run
        if run is None or turn != self._turn:
            return
        now = self._timeline.now
        self.busy_s += now - run.began_s
        sampled = self.scheduler.complete(run.step, now, run.steps)
        self._begin()
        for sequence, _ in sampled:
            if sequence.first_token_s == now:
                self.on_first(sequence)
            if sequence.finish_reason is not None:
                self.on_end(sequence)


def _ignore(_sequence: VirtualSequence) -> None:
    """Until somebody listens."""
