"""A virtual replica: the simulated engines' scheduler, run from step to step without waiting.

While all that runs decodes and nobody waits, every step is like the one before but for a longer context, so a
whole stretch of them is one event; whoever comes in between cuts it at the end of the step under way.
"""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from math import ceil, inf, sqrt

from loadtest.engine.kv_cache import KvCache
from loadtest.engine.latency import PROFILES, LatencyModel
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.scheduler import Scheduler, SchedulerLimits, Step
from loadtest.engine.sequence import Sequence
from loadtest.simulate.asks import Ask

_RESTORED_SHARE = 0.045
"""What a block restored from host memory costs, in prefills of it (LMCache's published figures)."""
_OWN = 1 << 61
"""Hashes from here on belong to answers that nobody else has."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of replica; tokens, seconds."""

    latency: LatencyModel
    kv_tokens: int
    step_tokens: int = 8192
    host_tokens: int = 0
    """A tier of host memory behind the cache (LMCache, HiCache); 0: none."""
    most_running: int = 256


HARDWARE = {
    "8b-h100": Hardware(PROFILES["8b-h100"], kv_tokens=420_000),
    "70b-4xh100": Hardware(PROFILES["70b-4xh100"], kv_tokens=421_000),
    "8b-a10g": Hardware(PROFILES["8b-a10g"], kv_tokens=36_000, step_tokens=2048),
}


class VirtualSequence(Sequence):
    """A sequence of which only lengths and hashes are known."""

    __slots__ = ("ask", "ticket")

    tokens: range  # type: ignore[assignment]

    def __init__(self, ask: Ask, ticket: int, arrived_s: float) -> None:
        super().__init__((), SamplingParams(max_tokens=max(1, ask.output_tokens)), 0, arrived_s)
        self.ask = ask
        self.ticket = ticket
        self.prompt_tokens = max(1, ask.prompt.tokens)
        self.tokens = range(self.prompt_tokens)
        self.hashes = list((ask.answer or ask.prompt).blocks)

    def hash_blocks(self, block_size: int, count: int) -> None:  # noqa: ARG002
        for index in range(len(self.hashes), count):
            self.hashes.append(_OWN + (self.ticket << 20) + index)

    def sample(self, now: float) -> int:
        self.grow(1, now)
        return 0

    def grow(self, count: int, now: float) -> None:
        """So many tokens more, the last of them now."""
        self.tokens = range(len(self.tokens) + count)
        self.last_token_s = now
        if self.first_token_s is None:
            self.first_token_s = now
        if self.output_tokens >= self.params.max_tokens:
            self.finish_reason = "length"


class _Stretch:
    """Steps under way: one of any kind, or many of nothing but decodes."""

    __slots__ = ("base_s", "began", "count", "ends", "growth_s", "step")

    def __init__(self, began: float, step: Step, count: int, base_s: float, growth_s: float) -> None:
        self.began = began
        self.step = step
        self.count = count
        self.base_s = base_s
        self.growth_s = growth_s
        self.ends = began + self.lasts(count)

    def lasts(self, count: int) -> float:
        """Seconds of the first `count` steps: each takes `growth_s` longer than the one before."""
        return count * self.base_s + self.growth_s * count * (count - 1) / 2

    def cut(self, now: float) -> None:
        """End with the step that is under way at `now`."""
        elapsed = now - self.began
        if self.count == 1 or elapsed >= self.lasts(self.count - 1):
            return
        a, b = self.growth_s / 2, self.base_s - self.growth_s / 2
        count = elapsed / b if a <= 0 else (sqrt(b * b + 4 * a * elapsed) - b) / (2 * a)
        self.count = min(self.count, max(1, ceil(count - 1e-9)))
        self.ends = self.began + self.lasts(self.count)


class VirtualReplica:
    """One replica. `first` and `done` are told as it happens; `slowdown` multiplies every step."""

    def __init__(
        self,
        name: str,
        hardware: Hardware,
        block_tokens: int,
        slowdown: float = 1.0,
        *,
        first: Callable[["VirtualReplica", VirtualSequence, float], None],
        done: Callable[["VirtualReplica", VirtualSequence, float], None],
    ) -> None:
        self.name = name
        self.hardware = hardware
        self.slowdown = slowdown
        self.block_tokens = block_tokens
        self._first = first
        self._done = done
        self._host: OrderedDict[int, None] = OrderedDict()
        self._host_blocks = hardware.host_tokens // block_tokens
        self._loaded = 0
        self._stretch: _Stretch | None = None
        self.busy_s = 0.0
        self._start()

    def restart(self) -> list[VirtualSequence]:
        """Empty caches, nothing running; what was there is lost and handed back."""
        lost = [_virtual(one) for one in (*self.scheduler.running, *self.scheduler.waiting)]
        self._start()
        return lost

    def _start(self) -> None:
        self.cache = KvCache(self.hardware.kv_tokens // self.block_tokens, self.block_tokens)
        limits = SchedulerLimits(self.hardware.most_running, self.hardware.step_tokens)
        self.scheduler = Scheduler(limits, self.cache, self if self._host_blocks else None)
        self._host.clear()
        self._stretch = None
        self._loaded = 0

    def flush(self) -> None:
        """The cache is lost, what runs goes on."""
        self.cache.forget_idle()
        self._host.clear()

    @property
    def wakes_at(self) -> float:
        """When the next stretch of steps ends; infinity when there is none."""
        return inf if self._stretch is None else self._stretch.ends

    @property
    def kv_usage_ratio(self) -> float:
        return 1 - self.cache.free / self.cache.num_blocks

    def add(self, sequence: VirtualSequence, now: float) -> None:
        """A request comes in. Raises ValueError if it could never fit."""
        self.scheduler.add(sequence)
        if self._stretch is None:
            self._begin(now)
        else:
            self._stretch.cut(now)

    def wake(self) -> None:
        """The stretch under way has ended."""
        stretch, self._stretch = self._stretch, None
        assert stretch is not None
        self.busy_s += stretch.ends - stretch.began
        if stretch.count > 1:
            self._apply_decodes(stretch)
        else:
            self._apply(stretch.step, stretch.ends)
        self._begin(stretch.ends)

    # ---- inside ----

    def _begin(self, now: float) -> None:
        step = self.scheduler.schedule(now)
        if step is None:
            return
        latency, load = self.hardware.latency, step.load
        loaded = self.scheduler.counters.loaded_tokens
        restoring_s = (loaded - self._loaded) * latency.prefill_token_s * _RESTORED_SHARE
        self._loaded = loaded
        base_s = (latency.step_s(load) + restoring_s) * self.slowdown
        growth_s = latency.context_token_s * load.decodes * self.slowdown
        count = 1
        if load.decodes == len(step.chunks) and not self.scheduler.waiting and not restoring_s:
            count = self._alike(step)
        self._stretch = _Stretch(now, step, count, base_s, growth_s)

    def _alike(self, step: Step) -> int:
        """How many steps of pure decoding follow each other: until one ends, or blocks might run out."""
        size = self.block_tokens
        count = min(s.params.max_tokens - s.output_tokens for s, _ in step.chunks)
        if count <= 1:
            return 1
        wanted = sum(-(-(len(s.tokens) + count) // size) - len(s.blocks) for s, _ in step.chunks)
        if wanted > self.cache.free:
            room = self.cache.free // len(step.chunks) * size
            return max(1, min(count, room))
        return count

    def _apply(self, step: Step, now: float) -> None:
        fresh = [s for s, _ in step.chunks if s.first_token_s is None]
        sampled = self.scheduler.complete(step, now)
        for sequence in fresh:
            if sequence.first_token_s is not None:
                self._first(self, _virtual(sequence), now)
        for sequence, _ in sampled:
            if sequence.ended:
                self._ended(_virtual(sequence), now)

    def _apply_decodes(self, stretch: _Stretch) -> None:
        """All steps but the last in one go; the last by the scheduler, which ends what ends."""
        scheduler, more = self.scheduler, stretch.count - 1
        for sequence, _ in stretch.step.chunks:
            virtual = _virtual(sequence)
            virtual.grow(more, stretch.ends)
            virtual.computed += more
            grown = scheduler.grow(virtual, len(virtual.tokens))
            assert grown, "a stretch is never longer than there is room for"
        scheduler.counters.steps += more
        scheduler.counters.generation_tokens += more * len(stretch.step.chunks)
        self._apply(stretch.step, stretch.ends)

    def _ended(self, sequence: VirtualSequence, now: float) -> None:
        if self._host_blocks:
            self._keep_in_host(sequence.ask.prompt.blocks)
        self._done(self, sequence, now)

    def loaded(self, sequence: Sequence, known: int) -> int:
        """Host memory as the scheduler's connector."""
        blocks = _virtual(sequence).ask.prompt.blocks[known // self.block_tokens :]
        tokens = 0
        for block in blocks:
            if block not in self._host or known + tokens + self.block_tokens >= sequence.prompt_tokens:
                break
            tokens += self.block_tokens
        return tokens

    def _keep_in_host(self, blocks: Many[int]) -> None:
        for block in reversed(blocks):
            self._host[block] = None
            self._host.move_to_end(block)
        while len(self._host) > self._host_blocks:
            self._host.popitem(last=False)


def _virtual(sequence: Sequence) -> VirtualSequence:
    assert isinstance(sequence, VirtualSequence)
    return sequence
