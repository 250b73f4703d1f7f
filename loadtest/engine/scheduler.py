"""Continuous batching, one iteration at a time: `schedule` decides a step, `complete` applies it.

Pure: no socket and no clock, `now` is handed in, so the same code runs under real and under virtual time.
Running sequences go before waiting ones, waiting ones in arrival order (or by priority); a long prefill is
done in chunks under the step's token budget; when blocks run out the latest running sequence is preempted
and computed again later.
"""

from bisect import insort
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple

from loadtest.engine.host_tier import HostTier
from loadtest.engine.kv_cache import KvCache
from loadtest.engine.sampling import FinishReason
from loadtest.engine.step import Counters, Step, W, load_of
from loadtest.engine.work import Work


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The batch limits and cache rules; see `EngineOptions` for advice."""

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    prefix_caching: bool = True
    reuse: Literal["as_filled", "prompt_on_finish"] = "as_filled"
    reserve_output: bool = False
    scheduling: Literal["fcfs", "priority"] = "fcfs"


class _Admitted(NamedTuple):
    """What joined the batch in one step."""

    sequences: int = 0
    queued_s: float = 0.0
    loaded_tokens: int = 0


class Scheduler(Generic[W]):
    """The waiting queue, the running batch, and the blocks they hold.

    With a `tier`, prompts that have left the cache may be found there and copied back in.
    """

    def __init__(self, limits: SchedulerLimits, cache: KvCache, tier: HostTier | None = None) -> None:
        self.limits = limits
        self.cache = cache
        self.tier = tier
        self.running: list[W] = []
        self.waiting: list[W] = []
        self.counters = Counters()
        if tier is not None:
            cache.listeners.append(tier)

    def add(self, sequence: W) -> None:
        """Queue it. Raises ValueError if the cache could not hold it even alone."""
        if self._blocks_for(sequence.longest) > self.cache.num_blocks:
            raise ValueError(f"{sequence.longest} tokens do not fit into {self.cache.num_blocks} blocks")
        insort(self.waiting, sequence, key=self._order) if self._by_priority else self.waiting.append(
            sequence
        )

    def schedule(self, now: float) -> Step[W] | None:
        """Decide the next step, holding the blocks it needs; None when there is nothing to do."""
        budget = self.limits.max_num_batched_tokens
        running, size = self.running, self.cache.block_size
        chunks: list[tuple[W, int]] = []
        preempted = 0
        index = 0
        while index < len(running) and budget:
            sequence = running[index]
            count = min(sequence.length - sequence.computed, budget)
            if sequence.computed + count > len(sequence.blocks) * size:
                preempted += self._make_room(sequence, sequence.computed + count)
                if index == len(running):
                    break
            chunks.append((sequence, count))
            budget -= count
            index += 1
        admitted = _Admitted() if preempted else self._admit(chunks, budget, now)
        if not chunks:
            return None
        load, context_requests = load_of(chunks, admitted.loaded_tokens)
        return Step(tuple(chunks), load, context_requests, admitted.sequences, admitted.queued_s, preempted)

    def repeatable(self, step: Step[W]) -> int:
        """How many steps in a row, `step` the first, differ in nothing but their contexts' lengths.

        If nothing arrives or is ended from outside, and every output is as long as it may be. Over 1 only
        where all decode, none ends before the last step, no block is missing on the way, nobody who waits
        could join (that takes a block given back or published), and nobody listens for full blocks.
        """
        if step.load.prefill_tokens or step.load.loaded_tokens or step.preempted:
            return 1
        size = self.cache.block_size
        steps = min([sequence.longest - sequence.length for sequence, _ in step.chunks])
        if not self.waiting and not self.cache.listeners:
            wanted = [
                (sequence.computed + steps + size - 1) // size - len(sequence.blocks)
                for sequence, _ in step.chunks
            ]
            if sum(wanted) <= self.cache.free:
                return steps
        return min(steps, *[size - sequence.computed % size for sequence, _ in step.chunks])

    def _make_room(self, sequence: W, length: int) -> int:
        """Grow a running sequence, preempting from the batch's tail until it fits; how many were."""
        preempted = 0
        while not self._grow(sequence, length):
            victim = self.running.pop()
            self._preempt(victim)
            preempted += 1
            if victim is sequence:
                break
        return preempted

    def _admit(self, chunks: list[tuple[W, int]], budget: int, now: float) -> _Admitted:
        admitted, queued_s, loaded_tokens = 0, 0.0, 0
        while self.waiting and budget and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            if not self._start(sequence, budget):
                break
            del self.waiting[0]
            self.running.append(sequence)
            loaded_tokens += sequence.loaded_tokens
            if sequence.scheduled_s is None:
                sequence.scheduled_s = now
                admitted += 1
                queued_s += now - sequence.arrived_s
            count = min(sequence.length - sequence.computed, budget)
            chunks.append((sequence, count))
            budget -= count
        return _Admitted(admitted, queued_s, loaded_tokens)

    def _start(self, sequence: W, budget: int) -> bool:
        """Take what the cache knows of it and room for its first chunk, or nothing at all."""
        found, loaded = self._found(sequence)
        known = (len(found) + loaded) * self.cache.block_size
        length = sequence.longest if self.limits.reserve_output else min(sequence.length, known + budget)
        wanted = self._blocks_for(length) - len(found)
        if wanted + self.cache.idle(found) > self.cache.free:
            return False
        self.cache.hold(found)
        sequence.blocks = found + (self.cache.take(wanted) or [])
        sequence.computed = known
        sequence.loaded_tokens = loaded * self.cache.block_size
        sequence.published = len(found)
        self._publish(sequence, known)
        if self.tier is not None:
            self.tier.touch(sequence.hashes[: len(found) + loaded])
        if sequence.scheduled_s is None:
            sequence.cached_tokens = known
            self._count_lookup(sequence, len(found) + loaded)
        return True

    def _found(self, sequence: W) -> tuple[list[int], int]:
        """Known blocks at its start, and how many more the tier has; one token is always left to compute,
        to sample from."""
        if not (self.limits.prefix_caching and sequence.reuses):
            return [], 0
        whole = sequence.hash_blocks(self.cache.block_size, (sequence.length - 1) // self.cache.block_size)
        hashes = sequence.hashes[:whole]
        found = self.cache.find(hashes)
        return found, 0 if self.tier is None else self.tier.find(hashes[len(found) :])

    def _count_lookup(self, sequence: W, found: int) -> None:
        counters = self.counters
        if self.limits.prefix_caching and sequence.reuses:
            counters.prefix_query_tokens += sequence.prompt_tokens
            counters.prefix_hit_tokens += sequence.cached_tokens
        counters.blocks_reused += found
        counters.blocks_missed += sequence.prompt_tokens // self.cache.block_size - found

    def complete(self, step: Step[W], now: float, times: int = 1) -> list[tuple[W, int]]:
        """Apply a step that ended at `now`: who sampled which token, in batch order.

        Ended ones have left the batch. A step that is `repeatable` may be applied several `times` at once.
        """
        self.counters.steps += times
        sampled: list[tuple[W, int]] = []
        for sequence, count in step.chunks:
            token = None if sequence.ended else self._advance(sequence, count, now, times)
            if token is None:
                continue
            sampled.append((sequence, token))
            if sequence.ended:
                self._leave(sequence)
        self.counters.generation_tokens += len(sampled) * times
        return sampled

    def _advance(self, sequence: W, count: int, now: float, times: int) -> int | None:
        """Its chunk is computed; the token sampled, if nothing of it is left to compute."""
        if sequence.computed < sequence.prompt_tokens and not sequence.output_tokens:
            self.counters.computed_prompt_tokens += count
            if sequence.computed + count == sequence.prompt_tokens:
                self.counters.prompt_tokens += sequence.prompt_tokens
        computed = sequence.computed = sequence.computed + count * times
        size = self.cache.block_size
        if computed > len(sequence.blocks) * size:
            self._grow(sequence, computed)
        if computed - sequence.published * size >= size and self.limits.reuse == "as_filled":
            self._publish(sequence, computed)
        if times > 1:
            return sequence.sample_many(times, now)
        return sequence.sample(now) if computed == sequence.length else None

    def _publish(self, sequence: W, length: int) -> None:
        """Make the full blocks of the first `length` tokens reusable, as far as their hashes are known."""
        size = self.cache.block_size
        start, end = sequence.published, length // size
        if end <= start or not self.limits.prefix_caching:
            return
        end = sequence.hash_blocks(size, end)
        if end <= start:
            return
        parent = sequence.hashes[start - 1] if start else None
        self.cache.publish(
            sequence.blocks[start:end],
            sequence.hashes[start:end],
            parent,
            sequence.token_ids(start * size, end * size),
        )
        sequence.published = end

    def end(self, sequence: W, reason: FinishReason) -> bool:
        """End it from outside: a stop string, a client that left. False if it has ended already."""
        if sequence.ended:
            return False
        sequence.finish_reason = reason
        self._leave(sequence)
        return True

    def _leave(self, sequence: W) -> None:
        reason = sequence.finish_reason or "abort"
        self.counters.finished[reason] += 1
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        if self.limits.reuse == "prompt_on_finish" and sequence.prefilled:
            self._publish(sequence, sequence.prompt_tokens)
        self._free(sequence)

    def _preempt(self, sequence: W) -> None:
        """Back to the head of the queue; its filled blocks stay findable until they are evicted."""
        self._free(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        self.counters.preemptions += 1
        if self._by_priority:
            insort(self.waiting, sequence, key=self._order)
        else:
            self.waiting.insert(0, sequence)

    def _free(self, sequence: W) -> None:
        self.cache.release(sequence.blocks)
        sequence.blocks = []
        sequence.published = 0

    def _grow(self, sequence: W, length: int) -> bool:
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
    def _order(sequence: Work) -> tuple[int, float]:
        return sequence.priority, sequence.arrived_s
