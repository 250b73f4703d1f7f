from typing import Any

import pytest

from policies.outcome import Ending, Outcome
from policies.routing.events import (
    BlocksRemoved,
    BlocksStored,
    Dispatched,
    Done,
    FirstToken,
    Forgotten,
    Prompt,
)
from policies.routing.pipeline.memory import Memory
from policies.routing.pipeline.options import PipelineOptions
from tests.support.routing import NOW, FakeLoad, FakeReplica, prompt_of

FLEET = [FakeReplica("a"), FakeReplica("b")]
PROMPT = prompt_of("x" * 10, block_tokens=64)


def memory(**options: Any) -> Memory:
    return Memory(PipelineOptions(**options))


def test_small_blocks_are_joined() -> None:
    """Four of 16 tokens make one of 64, the last hash of each four stands for them; a rest is dropped."""
    prompt = Prompt(list(range(10)), tokens=165, block_tokens=16.0)
    assert memory().block_view(prompt) == Prompt([3, 7], 165, 64.0)
    assert memory(block_tokens=40).block_view(prompt) == Prompt([2, 5, 8], 165, 48.0)
    assert memory(block_tokens=16).block_view(prompt) is prompt
    assert memory(prefix_from="kv_events").block_view(prompt) is prompt


def test_uncached_tokens_wait_until_the_first_token() -> None:
    """The second time only what is not cached counts; the end releases what had no first token."""
    known = memory()
    known.observe(Dispatched("a", 1, NOW, PROMPT))
    assert known.pending.total("a") == 640
    known.observe(Dispatched("a", 2, NOW, prompt_of("x" * 10 + "yy", block_tokens=64)))
    assert known.pending.total("a") == 640 + 128
    known.observe(FirstToken("a", 1, NOW))
    known.observe(Done("a", 2, NOW, Outcome(Ending.COMPLETED, NOW, None, NOW)))
    assert known.pending.total("a") == 0
    assert known.hits(PROMPT, FLEET) == [10, 0]


@pytest.mark.parametrize(("auto_tune", "hits"), [(True, [4, 7]), (False, [7, 7])])
def test_capacity_is_what_the_engine_tells(auto_tune: bool, hits: list[int]) -> None:
    """256 tokens of KV cache are four blocks of 64; without a word from it, or an ear for it, the option holds."""
    known = memory(lru_capacity_per_replica=7, auto_tune=auto_tune)
    known.note_sizes(
        [FakeReplica("a", load=FakeLoad(kv_capacity_tokens=256)), FakeReplica("b", load=FakeLoad())]
    )
    for ticket, replica in enumerate("ab"):
        known.observe(Dispatched(replica, ticket, NOW, PROMPT))
    assert known.hits(PROMPT, FLEET) == hits


def test_capacity_is_tokens_whatever_the_blocks() -> None:
    """Ten blocks of 64 tokens are two of 256."""
    known = memory(lru_capacity_per_replica=10)
    large = prompt_of("x" * 10, block_tokens=256)
    known.observe(Dispatched("a", 1, NOW, large))
    assert known.hits(large, FLEET) == [2, 0]


def test_only_prompts_that_nobody_knows_are_cold() -> None:
    """The replica that had the latest of them is the last in the order."""
    known = memory()
    for ticket, (replica, text) in enumerate([("a", "p"), ("b", "q"), ("a", "r"), ("b", "p")]):
        known.observe(Dispatched(replica, ticket, NOW, prompt_of(text, block_tokens=64)))
    assert list(known.cold) == ["b", "a"]
    known.observe(Dispatched("b", 9, NOW, prompt_of("", block_tokens=64)))  # too short for a block
    assert list(known.cold) == ["a", "b"]


def test_a_restarted_replica_is_a_stranger() -> None:
    """Nothing cached, nothing waiting, and its size is asked again."""
    known = memory(lru_capacity_per_replica=7)
    known.note_sizes([FakeReplica("a", load=FakeLoad(kv_capacity_tokens=256))])
    known.observe(Dispatched("a", 1, NOW, PROMPT))
    known.observe(Forgotten("a", NOW))
    assert known.hits(PROMPT, FLEET) == [0, 0]
    assert known.pending.total("a") == 0
    assert not known.cold
    known.observe(Dispatched("a", 2, NOW, PROMPT))
    assert known.hits(PROMPT, FLEET) == [7, 0]


def test_prefixes_from_kv_events() -> None:
    """Then only what engines say counts, and otherwise it does not."""
    events = [BlocksStored("a", NOW, PROMPT.blocks[:6]), BlocksRemoved("a", NOW, PROMPT.blocks[4:6])]
    listening, deaf = memory(prefix_from="kv_events"), memory()
    for each in (listening, deaf):
        each.observe(Dispatched("b", 1, NOW, PROMPT))
        for event in events:
            each.observe(event)
    assert listening.hits(PROMPT, FLEET) == [4, 0]
    assert deaf.hits(PROMPT, FLEET) == [0, 10]
