"""The engine in real time: one step loop per engine drives the scheduler and pushes outputs to all
generations.

The loop is a chain of timers, not a task. Steps follow each other on the engine's own clock, so that a late
timer costs no throughput; if this process falls too far behind, the lag is dropped.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.engine.generation import Generation
from loadtest.engine.kv_cache import KvCache
from loadtest.engine.options import EngineOptions
from loadtest.engine.sampling import FinishReason, SamplingParams
from loadtest.engine.scheduler import Scheduler, SchedulerLimits
from loadtest.engine.sequence import Sequence as Request
from loadtest.engine.stats import EngineListener, Stats, StepRecord
from loadtest.engine.step import Step

__all__ = ["EngineCore", "EngineDead", "EngineOptions", "Generation", "Stats"]

_STEPS_PER_TURN: Final = 16
"""Steps that may be applied in one turn of the event loop before sockets get theirs."""
MAX_LAG_S: Final = 0.1
_DEAD: Final = "EngineCore encountered an issue. See stack trace (above) for the root cause."
"""What vLLM's servers say once their engine process is gone."""


class EngineDead(Exception):
    """The engine process is gone; nothing can be submitted."""


@dataclass(slots=True)
class _Underway:
    step: Step[Request]
    started_s: float
    ends_s: float


class EngineCore:
    """One simulated engine. All methods are synchronous and must be called in its event loop's thread."""

    def __init__(self, options: EngineOptions) -> None:
        if options.num_blocks * options.block_size < options.max_model_len:
            raise ValueError("the KV cache is smaller than the longest request")
        self.options = options
        self.cache = KvCache(options.num_blocks, options.block_size)
        self.scheduler: Scheduler[Request] = Scheduler(_limits(options), self.cache)
        self.listeners: list[EngineListener] = []
        self.slowdown = 1.0
        """Multiplies every step time from the next step on."""
        self.alive = True
        self.stalled = False
        self.draining = False
        """What runs is finished, and nothing more can be submitted."""
        self.sleep_level = 0
        """0 awake, 1 weights offloaded, 2 everything discarded."""
        self._generations: dict[Request, Generation] = {}
        self._underway: _Underway | None = None
        self._timer: asyncio.Handle | None = None
        self._after_step: list[Callable[[], None]] = []
        self._busy_s = 0.0

    # ---- what servers call ----

    def submit(self, prompt_ids: Sequence[int], params: SamplingParams) -> Generation:
        """Queue one generation. Raises EngineDead, and ValueError if the prompt is empty or can never fit."""
        if not self.alive:
            raise EngineDead(_DEAD)
        if self.draining:
            raise EngineDead("cannot schedule new futures after shutdown")
        if not prompt_ids:
            raise ValueError("the prompt is empty")
        request = Request(prompt_ids, params, self.options.seed, time.monotonic())
        self.scheduler.add(request)
        generation = Generation(request, params.stream_interval or self.options.stream_interval)
        self._generations[request] = generation
        self._wake()
        return generation

    def abort(self, generation: Generation) -> None:
        """End it and free its blocks; its consumer gets a last output with finish reason "abort"."""
        self._end(generation, "abort", None)

    def abort_all(self) -> None:
        """Abort everything that runs or waits, as sleep and shutdown do."""
        for generation in list(self._generations.values()):
            self.abort(generation)

    def fail(self, generation: Generation, message: str) -> None:
        """End it with an engine-side error: finish reason "error", and `generation.error` says what."""
        self._end(generation, "error", message)

    def kill(self, message: str = _DEAD) -> None:
        """The engine process dies: every generation fails and nothing more can be submitted."""
        self.alive = False
        for generation in list(self._generations.values()):
            self.fail(generation, message)

    def revive(self) -> None:
        """Back from the dead with an empty cache."""
        self.alive = True
        self.cache.clear()

    def stall(self) -> None:
        """Hang: no step completes any more, and nothing is reported as wrong."""
        self.stalled = True

    def resume(self) -> None:
        """End a stall."""
        self.stalled = False
        self._wake()

    def sleep(self, level: int) -> None:
        """Abort what runs, drop the cache, and let later requests wait."""
        self.abort_all()
        self.cache.clear()
        self.sleep_level = level

    def wake_up(self) -> None:
        """End the sleep."""
        self.sleep_level = 0
        self._wake()

    def reset_prefix_cache(self) -> bool:
        """Forget cached blocks; False, and nothing done, while requests run."""
        return self.cache.clear()

    def after_step(self, callback: Callable[[], None]) -> None:
        """Call back when the current step has ended, at once if none is under way."""
        if self._underway is None:
            callback()
        else:
            self._after_step.append(callback)

    def close(self) -> None:
        """Stop the step loop and abort everything."""
        self.abort_all()
        self.stalled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stats(self) -> Stats:
        """A snapshot."""
        scheduler, cache, counters = self.scheduler, self.cache, self.scheduler.counters
        return Stats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            running_max_tokens=sum(request.longest for request in scheduler.running),
            max_num_seqs=self.options.max_num_seqs,
            blocks_total=cache.num_blocks,
            blocks_used=cache.num_blocks - cache.free,
            block_size=cache.block_size,
            blocks_reused=counters.blocks_reused,
            blocks_missed=counters.blocks_missed,
            blocks_allocated=cache.allocated,
            prefix_query_tokens=counters.prefix_query_tokens,
            prefix_hit_tokens=counters.prefix_hit_tokens,
            prompt_tokens=counters.prompt_tokens,
            computed_prompt_tokens=counters.computed_prompt_tokens,
            generation_tokens=counters.generation_tokens,
            preemptions=counters.preemptions,
            steps=counters.steps,
            finished=dict(counters.finished),
            busy_s=self._busy_s,
        )

    # ---- the step loop ----

    def _wake(self) -> None:
        """Start the loop on the next turn, so that requests of one turn share their first step."""
        if self._timer is None and self._runs:
            self._timer = asyncio.get_running_loop().call_soon(self._turn)

    @property
    def _runs(self) -> bool:
        return self.alive and not self.stalled and not self.sleep_level

    def _turn(self) -> None:
        """Apply every step that is due, then arm the timer for the one under way."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for _ in range(_STEPS_PER_TURN):
            if not self._runs or not self._step_forward(time.monotonic()):
                break
        if self._underway is None or not self._runs:
            return
        delay = self._underway.ends_s - time.monotonic()
        self._timer = loop.call_later(delay, self._turn) if delay > 0 else loop.call_soon(self._turn)

    def _step_forward(self, now: float) -> bool:
        """Finish the step under way if it is due and begin the next; False if nothing was to be done."""
        begins = now
        if self._underway is not None:
            if self._underway.ends_s > now:
                return False
            begins = max(self._underway.ends_s, now - MAX_LAG_S)
            underway, self._underway = self._underway, None
            self._finish_step(underway)
        step = self.scheduler.schedule(begins)
        if step is None:
            return False
        duration = self.options.latency.step_s(step.load) * self.slowdown / self.options.speed
        self._underway = _Underway(step, begins, begins + duration)
        return True

    def _finish_step(self, underway: _Underway) -> None:
        now = underway.ends_s
        self._busy_s += now - underway.started_s
        step = underway.step
        before = (
            [(request.last_token_s, request.arrived_s) for request, _ in step.chunks]
            if self.listeners
            else []
        )
        sampled = self.scheduler.complete(step, now)
        completed = 0
        for request, token in sampled:
            generation = self._generations.get(request)
            if generation is None:
                continue
            stop = generation.take(token)
            if stop is not None:
                self.scheduler.end(request, "stop")
            if request.finish_reason is not None:
                completed += 1
                self._forget(request, now)
        if self.listeners:
            self._tell(underway, len(sampled), completed, before)
        callbacks, self._after_step = self._after_step, []
        for callback in callbacks:
            callback()

    def _tell(
        self, underway: _Underway, new_tokens: int, completed: int, before: list[tuple[float | None, float]]
    ) -> None:
        step, now = underway.step, underway.ends_s
        first: list[float] = []
        gaps: list[float] = []
        for (request, _), (last_token_s, arrived_s) in zip(step.chunks, before, strict=True):
            if request.last_token_s != now:
                continue
            first.append(now - arrived_s) if last_token_s is None else gaps.append(now - last_token_s)
        record = StepRecord(
            number=self.scheduler.counters.steps,
            ended_s=now,
            latency_s=now - underway.started_s,
            context_requests=step.context_requests,
            context_tokens=step.load.prefill_tokens,
            generation_requests=step.load.decodes,
            new_tokens=new_tokens,
            new_active=step.admitted,
            new_active_queue_s=step.admitted_queue_s,
            paused=step.preempted,
            completed=completed,
        )
        for listener in self.listeners:
            listener.token_times(first, gaps)
            listener.step_done(record)

    def _end(self, generation: Generation, reason: FinishReason, error: str | None) -> None:
        request = generation.sequence
        if self.scheduler.end(request, reason):
            self._forget(request, time.monotonic())
            generation.end(reason, error)

    def _forget(self, request: Request, now: float) -> None:
        if self._generations.pop(request, None) is None:
            return
        for listener in self.listeners:
            listener.request_done(request.record(now))


def _limits(options: EngineOptions) -> SchedulerLimits:
    return SchedulerLimits(
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        prefix_caching=options.prefix_caching,
        reuse=options.reuse,
        reserve_output=options.reserve_output,
        scheduling=options.scheduling,
    )
