"""Continuous batching, one iteration at a time: `schedule` decides a step, `complete` applies it.

Pure: no socket and no clock, `now` is handed in, so the same code runs under real and under virtual time.
Running sequences go before waiting ones, waiting ones in arrival order (or by priority); a long prefill is
done in chunks under the step's token budget; when blocks run out the latest running sequence is preempted
and computed again later.
"""

from bisect import insort
from dataclasses import dataclass, field
from typing import Literal, Protocol

from loadtest.engine.kv_cache import KvCache
from loadtest.engine.latency import StepLoad
from loadtest.engine.sampling import FinishReason
from loadtest.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The batch limits and cache rules; see `EngineOptions` for advice."""

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    prefix_caching: bool = True
    reuse: Literal["as_filled", "prompt_on_finish"] = "as_filled"
    reserve_output: bool = False
    scheduling: Literal["fcfs", "priority"] = "fcfs"


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration as decided: which sequences compute how many tokens."""

    chunks: tuple[tuple[Sequence, int], ...]
    load: StepLoad
    context_requests: int
    admitted: int
    admitted_queue_s: float
    preempted: int


@dataclass(slots=True)
class Counters:
    """Monotonic counts since start; tokens unless the name says otherwise."""

    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    prompt_tokens: int = 0
    computed_prompt_tokens: int = 0
    loaded_tokens: int = 0
    generation_tokens: int = 0
    blocks_reused: int = 0
    blocks_missed: int = 0
    preemptions: int = 0
    steps: int = 0
    finished: dict[FinishReason, int] = field(
        default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0}
    )


class Connector(Protocol):
    """A tier behind the cache, as vLLM's KV connectors are: what it holds is loaded, not computed."""

    def loaded(self, sequence: Sequence, known: int) -> int:
        """Tokens that it adds to the first `known` ones of a sequence, which is about to start."""
        ...


class Scheduler:
    """The waiting queue, the running batch, and the blocks they hold."""

    def __init__(self, limits: SchedulerLimits, cache: KvCache, connector: Connector | None = None) -> None:
        self.limits = limits
        self.cache = cache
        self.connector = connector
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self.counters = Counters()

    def add(self, sequence: Sequence) -> None:
        """Queue it. Raises ValueError if the cache could not hold it even alone."""
        if self._blocks_for(sequence.longest) > self.cache.num_blocks:
            raise ValueError(f"{sequence.longest} tokens do not fit into {self.cache.num_blocks} blocks")
        insort(self.waiting, sequence, key=self._order) if self._by_priority else self.waiting.append(
            sequence
        )

    def schedule(self, now: float) -> Step | None:
        """Decide the next step, holding the blocks it needs; None when there is nothing to do."""
        budget = self.limits.max_num_batched_tokens
        chunks: list[tuple[Sequence, int]] = []
        preempted = 0
        index = 0
        while index < len(self.running) and budget:
            sequence = self.running[index]
            count = min(len(sequence.tokens) - sequence.computed, budget)
            preempted += self._make_room(sequence, sequence.computed + count)
            if index == len(self.running):
                break
            chunks.append((sequence, count))
            budget -= count
            index += 1
        admitted, queued_s = (0, 0.0) if preempted else self._admit(chunks, budget, now)
        if not chunks:
            return None
        load, context_requests = _load_of(chunks)
        return Step(tuple(chunks), load, context_requests, admitted, queued_s, preempted)

    def _make_room(self, sequence: Sequence, length: int) -> int:
        """Grow a running sequence, preempting from the batch's tail until it fits; how many were."""
        preempted = 0
        while not self.grow(sequence, length):
            victim = self.running.pop()
            self._preempt(victim)
            preempted += 1
            if victim is sequence:
                break
        return preempted

    def _admit(self, chunks: list[tuple[Sequence, int]], budget: int, now: float) -> tuple[int, float]:
        admitted, queued_s = 0, 0.0
        while self.waiting and budget and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            if not self._start(sequence, budget):
                break
            del self.waiting[0]
            self.running.append(sequence)
            if sequence.scheduled_s is None:
                sequence.scheduled_s = now
                admitted += 1
                queued_s += now - sequence.arrived_s
            count = min(len(sequence.tokens) - sequence.computed, budget)
            chunks.append((sequence, count))
            budget -= count
        return admitted, queued_s

    def _start(self, sequence: Sequence, budget: int) -> bool:
        """Take what the cache knows of it and room for its first chunk, or nothing at all."""
        found = self._found(sequence)
        known = len(found) * self.cache.block_size
        loaded = 0 if self.connector is None else self.connector.loaded(sequence, known)
        known += loaded
        length = sequence.longest if self.limits.reserve_output else min(len(sequence.tokens), known + budget)
        wanted = self._blocks_for(length) - len(found)
        if wanted + self.cache.idle(found) > self.cache.free:
            return False
        self.cache.hold(found)
        self.counters.loaded_tokens += loaded
        sequence.blocks = found + (self.cache.take(wanted) or [])
        sequence.computed = known
        sequence.published = len(found)
        if sequence.scheduled_s is None:
            sequence.cached_tokens = known
            self._count_lookup(sequence, len(found))
        return True

    def _found(self, sequence: Sequence) -> list[int]:
        """Known blocks at its start; one token is always left to compute, to sample from."""
        if not (self.limits.prefix_caching and sequence.params.use_prefix_cache):
            return []
        whole = (len(sequence.tokens) - 1) // self.cache.block_size
        sequence.hash_blocks(self.cache.block_size, whole)
        return self.cache.find(sequence.hashes[:whole])

    def _count_lookup(self, sequence: Sequence, found: int) -> None:
        counters = self.counters
        if self.limits.prefix_caching and sequence.params.use_prefix_cache:
            counters.prefix_query_tokens += sequence.prompt_tokens
            counters.prefix_hit_tokens += sequence.cached_tokens
        counters.blocks_reused += found
        counters.blocks_missed += sequence.prompt_tokens // self.cache.block_size - found

    def complete(self, step: Step, now: float) -> list[tuple[Sequence, int]]:
        """Apply a step: who sampled which token, in batch order. Ended ones have left the batch."""
        self.counters.steps += 1
        sampled: list[tuple[Sequence, int]] = []
        for sequence, count in step.chunks:
            token = None if sequence.ended else self._advance(sequence, count, now)
            if token is None:
                continue
            sampled.append((sequence, token))
            if sequence.ended:
                self._leave(sequence)
        self.counters.generation_tokens += len(sampled)
        return sampled

    def _advance(self, sequence: Sequence, count: int, now: float) -> int | None:
        """Its chunk is computed; the token sampled, if nothing of it is left to compute."""
        if not sequence.prefilled and not sequence.output_tokens:
            self.counters.computed_prompt_tokens += count
            if sequence.computed + count == sequence.prompt_tokens:
                self.counters.prompt_tokens += sequence.prompt_tokens
        sequence.computed += count
        if self.limits.reuse == "as_filled":
            self._publish(sequence, sequence.computed)
        return sequence.sample(now) if sequence.computed == len(sequence.tokens) else None

    def _publish(self, sequence: Sequence, length: int) -> None:
        """Make the full blocks of the first `length` tokens reusable."""
        size = self.cache.block_size
        start, end = sequence.published, length // size
        if end <= start or not self.limits.prefix_caching:
            return
        sequence.hash_blocks(size, end)
        parent = sequence.hashes[start - 1] if start else None
        self.cache.publish(
            sequence.blocks[start:end],
            sequence.hashes[start:end],
            parent,
            sequence.tokens[start * size : end * size],
        )
        sequence.published = end

    def end(self, sequence: Sequence, reason: FinishReason) -> bool:
        """End it from outside: a stop string, a client that left. False if it has ended already."""
        if sequence.ended:
            return False
        sequence.finish_reason = reason
        self._leave(sequence)
        return True

    def _leave(self, sequence: Sequence) -> None:
        reason = sequence.finish_reason or "abort"
        self.counters.finished[reason] += 1
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        if self.limits.reuse == "prompt_on_finish" and sequence.prefilled:
            self._publish(sequence, sequence.prompt_tokens)
        self._free(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue; its filled blocks stay findable until they are evicted."""
        self._free(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        self.counters.preemptions += 1
        if self._by_priority:
            insort(self.waiting, sequence, key=self._order)
        else:
            self.waiting.insert(0, sequence)

    def _free(self, sequence: Sequence) -> None:
        self.cache.release(sequence.blocks)
        sequence.blocks = []
        sequence.published = 0

    def grow(self, sequence: Sequence, length: int) -> bool:
        """Hold blocks for so many of its tokens; False, and nothing changed, if there are too few."""
        wanted = self._blocks_for(length) - len(sequence.blocks)
        if wanted <= 0:
            return True
        taken = self.cache.take(wanted)
        if taken is None:
            return False
        sequence.blocks += taken
        return True

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.cache.block_size)

    @property
    def _by_priority(self) -> bool:
        return self.limits.scheduling == "priority"

    @staticmethod
    def _order(sequence: Sequence) -> tuple[int, float]:
        return sequence.params.priority, sequence.arrived_s


def _load_of(chunks: list[tuple[Sequence, int]]) -> tuple[StepLoad, int]:
    """The work in a batch, and how many of its sequences prefill."""
    prefill = pairs = decodes = context = context_requests = 0
    for sequence, count in chunks:
        length = sequence.computed + count
        if count == 1 and sequence.prefilled:
            decodes += 1
            context += length
        else:
            context_requests += 1
            prefill += count
            pairs += count * length
    return StepLoad(prefill, pairs, decodes, context), context_requests
