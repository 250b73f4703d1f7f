"""The virtual replica against the scheduler's own steps, one after the other."""

from random import Random

import pytest

from loadtest.engine.latency import LatencyModel
from loadtest.simulate.asks import Ask, chained
from loadtest.simulate.replica import HARDWARE, Hardware, VirtualReplica, VirtualSequence
from policies.routing.events import Prompt

SIMPLE = Hardware(
    LatencyModel(base_s=0.01, prefill_token_s=0.001, attention_pair_s=0, decode_s=0.001, context_token_s=0),
    kv_tokens=10_000,
    step_tokens=1_000,
)


class Watched:
    """A replica and what it told, driven by hand."""

    def __init__(self, hardware: Hardware = SIMPLE, block_tokens: int = 100, slowdown: float = 1.0) -> None:
        self.firsts: dict[int, float] = {}
        self.ends: dict[int, float] = {}
        self.cached: dict[int, int] = {}
        self.replica = VirtualReplica(
            "r", hardware, block_tokens, slowdown, first=self._first, done=self._done
        )

    def _first(self, _replica: VirtualReplica, sequence: VirtualSequence, at: float) -> None:
        self.firsts[sequence.ticket] = at

    def _done(self, _replica: VirtualReplica, sequence: VirtualSequence, at: float) -> None:
        self.ends[sequence.ticket] = at
        self.cached[sequence.ticket] = sequence.cached_tokens

    def until(self, now: float) -> None:
        while self.replica.wakes_at <= now:
            self.replica.wake()

    def add(self, ticket: int, at: float, ask: Ask) -> None:
        self.until(at)
        self.replica.add(VirtualSequence(ask, ticket, at), at)

    def finish(self) -> None:
        self.until(1e9)


def ask(tokens: int, output_tokens: int, *names: object) -> Ask:
    blocks = chained([(name, part) for name in names or (tokens,) for part in range(tokens)][: tokens // 100])
    return Ask(0.0, Prompt(blocks, tokens, 100), output_tokens)


def test_one_request_alone_takes_what_the_model_says() -> None:
    """500 tokens prefill in 10 + 500 ms, then four tokens of 11 ms."""
    there = Watched()
    there.add(1, 1.0, ask(500, 5))
    there.finish()
    assert there.firsts[1] == pytest.approx(1.51)
    assert there.ends[1] == pytest.approx(1.51 + 4 * 0.011)


def test_a_long_prompt_is_prefilled_in_chunks() -> None:
    there = Watched()
    there.add(1, 0.0, ask(2_500, 1))
    there.finish()
    assert there.firsts[1] == there.ends[1] == pytest.approx(3 * 0.01 + 2.5)


def test_who_comes_during_decoding_waits_for_the_end_of_that_step_only() -> None:
    """A stretch of a hundred steps is cut where the newcomer arrives."""
    there = Watched()
    there.add(1, 0.0, ask(100, 101))
    there.until(0.2)
    there.add(2, 0.5, ask(200, 1, "other"))
    there.finish()
    step = 0.011
    first_end = 0.11 + step * 36
    assert first_end == pytest.approx(0.506)
    assert there.firsts[2] == pytest.approx(first_end + 0.01 + 0.2 + 0.001)


def test_a_known_prefix_is_not_computed_again() -> None:
    there = Watched()
    there.add(1, 0.0, ask(1_000, 1, "a"))
    there.add(2, 10.0, ask(1_000, 1, "a"))
    there.finish()
    assert there.cached == {1: 0, 2: 900}
    assert there.firsts[2] == pytest.approx(10.0 + 0.01 + 0.1)


def test_a_flush_and_a_restart_lose_it() -> None:
    there = Watched()
    there.add(1, 0.0, ask(1_000, 1, "a"))
    there.until(5.0)
    there.replica.flush()
    there.add(2, 10.0, ask(1_000, 100, "a"))
    assert [one.ticket for one in there.replica.restart()] == [2]
    there.add(3, 20.0, ask(1_000, 1, "a"))
    there.finish()
    assert there.cached == {1: 0, 3: 0}
    assert 2 not in there.ends


def test_host_memory_holds_what_the_cache_evicts_at_a_fraction_of_the_price() -> None:
    hardware = Hardware(SIMPLE.latency, kv_tokens=1_000, step_tokens=1_000, host_tokens=100_000)
    there = Watched(hardware)
    there.add(1, 0.0, ask(900, 1, "a"))
    there.add(2, 10.0, ask(900, 1, "b"))
    there.add(3, 20.0, ask(900, 1, "a"))
    there.finish()
    assert there.cached[3] == 800, "one block was still in the cache itself"
    assert there.firsts[3] - 20.0 == pytest.approx(0.01 + 0.1 + 0.045 * 0.7)


def test_a_slow_replica_takes_its_factor_longer() -> None:
    times = []
    for slowdown in (1.0, 4.0):
        there = Watched(slowdown=slowdown)
        there.add(1, 0.0, ask(700, 20))
        there.finish()
        times.append(there.ends[1])
    assert times[1] == pytest.approx(4 * times[0])


@pytest.mark.parametrize("seed", range(6))
def test_stretches_give_what_single_steps_give(seed: int) -> None:
    """The same requests, once with stretches and once step by step: same times, same cache, to the nanosecond.

    Memory is tight, so that admission blocks and sequences are preempted on the way.
    """
    rng = Random(seed)
    hardware = Hardware(HARDWARE["8b-h100"].latency, kv_tokens=6_000, step_tokens=512)
    arrivals = []
    at = 0.0
    for ticket in range(120):
        at += rng.expovariate(4)
        arrivals.append((ticket, at, ask(rng.randrange(50, 1_500), rng.randrange(1, 200), rng.randrange(8))))
    fast, slow = Watched(hardware), Watched(hardware)
    slow.replica._alike = lambda _step: 1  # type: ignore[method-assign]
    for ticket, when, asked in arrivals:
        fast.add(ticket, when, asked)
        slow.add(ticket, when, asked)
    fast.finish()
    slow.finish()
    assert fast.firsts == pytest.approx(slow.firsts, rel=1e-9)
    assert fast.ends == pytest.approx(slow.ends, rel=1e-9)
    assert fast.cached == slow.cached
    assert fast.replica.cache.free == slow.replica.cache.free == fast.replica.cache.num_blocks
    assert fast.replica.scheduler.counters == slow.replica.scheduler.counters
