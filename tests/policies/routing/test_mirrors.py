"""What was promised of caches, and what was so."""

import pytest

from policies.routing.events import Prompt
from policies.routing.mirrors import Mirrors, Truth


def mirrors(usual_tokens: float = 1_000, offload_tokens: float = 0) -> Mirrors:
    return Mirrors(usual_tokens, offload_tokens, 10_000_000, 1.0, step=0.1)


def prompt(number: int, blocks: int = 5, block_tokens: float = 100) -> Prompt:
    hashes = tuple(hash((number, part)) & (2**60 - 1) for part in range(blocks))
    return Prompt(hashes, round(blocks * block_tokens), block_tokens)


def held(there: Mirrors, replica: str, count: int) -> int:
    """Blocks of that many prompts."""
    return sum(there.hits(prompt(number)).get(replica, 0) for number in range(count))


def test_a_mirror_holds_as_much_as_it_is_told() -> None:
    """10 blocks by default, 20 with memory behind, 40 once the engine says so."""
    for there, blocks in ((mirrors(), 10), (mirrors(offload_tokens=1_000), 20)):
        for number in range(30):
            there.store("a", prompt(number))
        assert held(there, "a", 30) == blocks
        there.set_size("a", 4_000)
        for number in range(30):
            there.store("a", prompt(number))
        assert held(there, "a", 30) == blocks + 30


def test_sizes_told_before_the_first_prompt_count() -> None:
    there = mirrors()
    there.set_size("a", 3_000)
    for number in range(30):
        there.store("a", prompt(number))
    assert held(there, "a", 30) == 30


def test_answers_correct_a_size() -> None:
    there = mirrors()
    for number in range(30):
        there.store("a", prompt(number))
    for _ in range(3):
        there.compare("a", predicted=500, reported=300)
    assert held(there, "a", 30) == int(10 * 0.9**3)
    assert (there.predicted_tokens, there.reported_tokens) == (1_500, 900)


def test_smaller_blocks_are_more_of_them() -> None:
    there = mirrors()
    there.store("a", prompt(0))
    for number in range(1, 200):
        there.store("a", prompt(number, block_tokens=10))
    assert held(there, "a", 200) == 100


def test_a_size_follows_what_text_turns_out_to_be() -> None:
    """What was taken for blocks of 100 tokens is of 75: 13 fit where 10 did. 3 % change nothing."""
    there = mirrors()
    there.store("a", prompt(0))
    for number in range(30):
        there.store("a", prompt(number, block_tokens=75))
    assert held(there, "a", 30) == 13
    for block_tokens in (73.0, 77.0):
        there.store("a", prompt(0, block_tokens=block_tokens))
        assert there.block_tokens == 75


def test_text_among_token_ids_does_not_shrink_a_mirror() -> None:
    """100 blocks of 10 tokens stay as many when one prompt came as text, in blocks of 100."""
    there = mirrors()
    for number in range(30):
        there.store("a", prompt(number, block_tokens=10))
    there.store("a", prompt(30, block_tokens=100))
    assert there.block_tokens == 10
    assert held(there, "a", 31) == 100


def test_a_mirror_that_promises_too_much_shrinks_and_one_too_little_grows() -> None:
    truth = Truth(step=0.02)
    for _ in range(50):
        assert not truth.compare(predicted=4_000, reported=3_000, block_tokens=128)
    assert truth.factor == pytest.approx(0.98**50)
    for _ in range(50):
        truth.compare(predicted=3_000, reported=4_000, block_tokens=128)
    assert truth.factor == pytest.approx(0.98**50 * 1.02**50)
    before = truth.factor
    truth.compare(predicted=4_000, reported=3_900, block_tokens=128)
    assert truth.factor == before


def test_the_factor_is_bounded() -> None:
    truth = Truth(step=0.5)
    for _ in range(100):
        truth.compare(10_000, 5_000, 128)
    assert truth.factor == Truth.LEAST
    for _ in range(100):
        truth.compare(5_000, 10_000, 128)
    assert truth.factor == Truth.MOST


def test_a_streak_of_broken_promises_is_a_flush() -> None:
    """Four in a row; one that was kept in between is proof that it was none."""
    truth = Truth(step=0.02)
    assert [truth.compare(4_000, 0, 128) for _ in range(8)] == [False, False, False, True] * 2
    for _ in range(20):
        assert not truth.compare(4_000, 0, 128)
        assert not truth.compare(4_000, 0, 128)
        assert not truth.compare(4_000, 4_000, 128)
    assert not any(truth.compare(200, 0, 128) for _ in range(20))
