"""A virtual request beside a real one, on the same scheduler and cache."""

from collections.abc import Iterable, Sequence
from random import Random

import pytest

from loadtest.engine.kv_cache import KvCache, chain_hash
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.scheduler import Scheduler, SchedulerLimits, W
from loadtest.engine.sequence import Sequence as RealSequence
from loadtest.engine.tokens import PIECE_BASE
from loadtest.simulate.sequence import VirtualSequence

SIZE = 4


def hashes_of(tokens: Sequence[int]) -> list[int]:
    hashes = [0]
    for begin in range(0, len(tokens) - SIZE + 1, SIZE):
        hashes.append(chain_hash(hashes[-1], tokens[begin : begin + SIZE]))
    return hashes[1:]


def found(sequences: Iterable[W], at_a_time: int, blocks: int) -> list[int]:
    """Tokens that each finds in the cache, when so many come together."""
    scheduler: Scheduler[W] = Scheduler(SchedulerLimits(max_num_batched_tokens=16), KvCache(blocks, SIZE))
    everyone = list(sequences)
    now = 0.0
    for begin in range(0, len(everyone), at_a_time):
        for sequence in everyone[begin : begin + at_a_time]:
            scheduler.add(sequence)
        while (step := scheduler.schedule(now)) is not None:
            now += 1.0
            scheduler.complete(step, now)
    return [sequence.cached_tokens for sequence in everyone]


@pytest.mark.parametrize("blocks", [12, 16, 24, 100])
@pytest.mark.parametrize("at_a_time", [1, 3])
def test_unknown_answers_take_as_much_room_as_an_engines(blocks: int, at_a_time: int) -> None:
    """Prompts come again, answers do not: after no word, a sampled answer depends on its seed."""
    random = Random(blocks)
    asked = [
        ([PIECE_BASE + random.randrange(6)] * random.randrange(4, 25), random.randrange(1, 15))
        for _ in range(200)
    ]
    real = [
        RealSequence(tokens, SamplingParams(max_tokens=answer, ignore_eos=True, seed=number), 0, 0.0)
        for number, (tokens, answer) in enumerate(asked)
    ]
    virtual = [
        VirtualSequence(number, len(tokens), answer, hashes_of(tokens), 0.0)
        for number, (tokens, answer) in enumerate(asked)
    ]
    expected = found(real, at_a_time, blocks)
    assert found(virtual, at_a_time, blocks) == expected
    assert 0 < sum(expected) < sum(len(tokens) for tokens, _ in asked)
