from collections.abc import Sequence as Many
from random import Random

import pytest

from loadtest.engine.latency import LatencyModel
from loadtest.simulate.hardware import Hardware
from loadtest.simulate.replica import VirtualReplica
from loadtest.simulate.sequence import VirtualSequence
from loadtest.simulate.timeline import Timeline

BASE = LatencyModel(
    base_s=1.0, prefill_token_s=0.5, attention_pair_s=0, decode_s=0.25, context_token_s=0.125, load_ratio=0.1
)
SMALL = Hardware(latency=BASE, kv_tokens=400, max_num_batched_tokens=16)


def replica(
    hardware: Hardware = SMALL, block: int = 4, *, fast: bool = True
) -> tuple[Timeline, VirtualReplica]:
    timeline = Timeline()
    return timeline, VirtualReplica("r", hardware, block, timeline, fast_forward=fast)


Plan = Many[tuple[float, int, int, Many[int]]]
"""Arrival, prompt tokens, completion tokens, hashes."""


def play(
    plan: Plan, hardware: Hardware = SMALL, *, fast: bool = True, slow_at: float | None = None
) -> dict[int, tuple[float, ...]]:
    """First token, end, and cached tokens of every request, by its number."""
    timeline, one = replica(hardware, fast=fast)
    ended: dict[int, tuple[float, ...]] = {}

    def end(sequence: VirtualSequence) -> None:
        assert sequence.first_token_s is not None
        assert sequence.output_tokens == plan[sequence.ticket][2]
        ended[sequence.ticket] = (
            sequence.first_token_s,
            timeline.now,
            sequence.cached_tokens,
            sequence.preemptions,
        )

    one.on_end = end
    for ticket, (at, prompt, completion, hashes) in enumerate(plan):
        timeline.at(at, one.submit, VirtualSequence(ticket, prompt, completion, hashes, at))
    if slow_at is not None:
        timeline.at(slow_at, one.slow_down, 3.0)
    timeline.run()
    assert one.scheduler.cache.free == one.scheduler.cache.num_blocks
    assert not one.scheduler.running and not one.scheduler.waiting
    return ended


def test_one_request_by_hand() -> None:
    """10 prompt tokens cost 1 + 5, then two decodes of contexts 11 and 12."""
    ended = play([(2.0, 10, 3, ())])
    first = 2.0 + 1 + 10 * 0.5
    assert ended[0][0] == pytest.approx(first)
    assert ended[0][1] == pytest.approx(first + (1 + 0.25 + 11 / 8) + (1 + 0.25 + 12 / 8))


def test_an_arrival_joins_after_the_step_under_way() -> None:
    """The second request comes in the middle of the first one's second decode, and starts at its end."""
    first = 1 + 4 * 0.5
    decodes = [1 + 0.25 + length / 8 for length in (5, 6)]
    arrives = first + decodes[0] + 0.1
    ended = play([(0.0, 4, 100, ()), (arrives, 2, 1, ())])
    begins = first + sum(decodes)
    assert ended[1][0] == pytest.approx(begins + 1 + 2 * 0.5 + 0.25 + 7 / 8)


def test_requests_of_one_instant_share_their_first_step() -> None:
    ended = play([(1.0, 4, 1, ()), (1.0, 4, 1, ())])
    assert ended[0][0] == ended[1][0] == pytest.approx(1 + 1 + 8 * 0.5)


def random_plan(random: Random, requests: int) -> Plan:
    """Prompts that share heads, some long, some arriving together."""
    plan: list[tuple[float, int, int, Many[int]]] = []
    at = 0.0
    for _ in range(requests):
        at += random.choice([0.0, 0.3, 4.0, 60.0]) * random.random()
        prompt = random.randrange(1, 80)
        family = random.randrange(4)
        hashes = [family * 1000 + index for index in range(prompt // 4)]
        answer = [hash((family, at, index)) for index in range(5)] if random.random() < 0.5 else []
        plan.append((at, prompt, random.randrange(1, 60), hashes + answer))
    return plan


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kv_tokens", [160, 4_000])
@pytest.mark.parametrize("host_tokens", [0, 400])
def test_many_steps_at_once_are_the_same_steps(seed: int, kv_tokens: int, host_tokens: int) -> None:
    """With plenty of memory and with so little that requests wait and are preempted."""
    plan = random_plan(Random(seed), 40)
    hardware = Hardware(
        latency=BASE, kv_tokens=kv_tokens, host_tokens=host_tokens, max_num_batched_tokens=16, max_num_seqs=6
    )
    fast = play(plan, hardware, slow_at=100.0)
    slow = play(plan, hardware, fast=False, slow_at=100.0)
    assert fast.keys() == slow.keys()
    for ticket, figures in slow.items():
        assert fast[ticket] == pytest.approx(figures, rel=1e-9)
    if kv_tokens == 160:
        assert any(figures[3] for figures in slow.values()), "nobody was preempted: the case is too mild"


def test_decode_throughput_is_the_latency_models() -> None:
    """A batch of 8 that decodes 1,000 tokens each takes the sum of its steps."""
    plan = [(0.0, 1, 1001, ()) for _ in range(8)]
    hardware = Hardware(latency=BASE, kv_tokens=40_000, max_num_batched_tokens=16)
    ended = play(plan, hardware)
    steps = sum(1 + 8 * 0.25 + 8 * (2 + step) / 8 for step in range(1000))
    assert ended[7][1] - ended[7][0] == pytest.approx(steps)


def test_a_known_prefix_is_not_computed_again() -> None:
    """9 tokens, two blocks of which are known: one token is left."""
    ended = play([(0.0, 9, 1, (1, 2)), (100.0, 9, 1, (1, 2)), (200.0, 9, 1, (1, 3))])
    assert [ended[ticket][2] for ticket in range(3)] == [0, 8, 4]
    assert ended[1][0] - 100.0 == pytest.approx(1 + 0.5)


def test_answers_are_found_where_their_hashes_are_known() -> None:
    ended = play([(0.0, 8, 9, (1, 2, 3, 4)), (500.0, 20, 1, (1, 2, 3, 4, 5))])
    assert ended[1][2] == 16


def test_host_memory_gives_back_what_the_cache_lost() -> None:
    """The cache holds 5 blocks: the second prompt drives the first one out, but not out of the tier."""
    hardware = Hardware(latency=BASE, kv_tokens=20, host_tokens=400, max_num_batched_tokens=16)
    first, other = (1, 2, 3, 4), (5, 6, 7, 8)
    ended = play([(0.0, 17, 1, first), (100.0, 17, 1, other), (200.0, 17, 1, first)], hardware)
    assert ended[2][2] == 16
    assert ended[2][0] - 200.0 == pytest.approx(1 + 0.5 + 16 * 0.5 * 0.1)


def test_a_client_that_leaves_frees_its_place() -> None:
    """Its tokens so far were sampled, the step under way still carries it, later ones do not."""
    timeline, one = replica()
    leaver, stayer = VirtualSequence(0, 4, 100, (), 0.0), VirtualSequence(1, 4, 20, (), 0.0)
    ended: list[float] = []
    one.on_end = lambda sequence: ended.append(timeline.now)
    one.submit(leaver)
    one.submit(stayer)
    prefill = 1 + 8 * 0.5
    both = [1 + 2 * 0.25 + 2 * (5 + step) / 8 for step in range(3)]
    timeline.at(prefill + both[0] + both[1] + 0.1, one.end, leaver)
    timeline.run()
    alone = sum(1 + 0.25 + (5 + step) / 8 for step in range(3, 19))
    assert ended == [pytest.approx(prefill + sum(both) + alone)]
    assert leaver.finish_reason == "abort" and leaver.output_tokens == 3
    assert one.scheduler.cache.free == one.scheduler.cache.num_blocks


def test_a_restart_loses_everything() -> None:
    timeline, one = replica()
    lost: list[VirtualSequence] = []
    one.submit(VirtualSequence(0, 40, 50, tuple(range(10)), 0.0))
    timeline.at(30.0, lambda: lost.extend(one.restart()))
    again = VirtualSequence(1, 40, 1, tuple(range(10)), 50.0)
    timeline.at(50.0, one.submit, again)
    timeline.run()
    assert [sequence.ticket for sequence in lost] == [0]
    assert again.cached_tokens == 0 and again.ended


def test_a_flush_is_not_seen_by_those_who_run() -> None:
    timeline, one = replica()
    first = VirtualSequence(0, 9, 20, (1, 2), 0.0)
    one.submit(first)
    timeline.at(10.0, one.lose_cache)
    second = VirtualSequence(1, 9, 1, (1, 2), 12.0)
    timeline.at(12.0, one.submit, second)
    timeline.run()
    assert first.ended and second.ended and second.cached_tokens == 0


def test_load_counts_who_runs_and_who_waits() -> None:
    timeline, one = replica(Hardware(latency=BASE, kv_tokens=40, max_num_batched_tokens=16))
    for ticket in range(3):
        one.submit(VirtualSequence(ticket, 15, 5, (), 0.0))
    timeline.at(20.0, timeline.stop)
    timeline.run()
    assert one.load() == (2, 1, pytest.approx(0.9), 40)
