"""Tokens per unit are learned, for each size apart, and never less than one."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from policies.limits.ratio import Ratio, ratio


def test_before_anything_is_known_the_prior_counts() -> None:
    """Rounded up: 3.5 bytes a token."""
    assert Ratio(ratio(2, 7)).of(7000) == (2001, 2001)
    assert Ratio(ratio(2, 7)).of(1) == (1, 1)


def test_nothing_of_nothing_teaches_nothing() -> None:
    """An answer without pieces says nothing of pieces."""
    learned = Ratio(ratio(1, 1))
    for _ in range(100):
        learned.learn(500, 0)
    assert learned.of(0) == (1, 1)
    assert learned.of(10) == (10, 10)


def test_a_template_weighs_more_on_short_prompts() -> None:
    """30 tokens for each and one for four bytes: both ends come out within a few per cent."""
    learned, rng = Ratio(ratio(2, 7)), Random(2)
    for _ in range(5_000):
        size = rng.choice((100, 120, 20_000, 30_000))
        learned.learn(30 + size // 4, size)
    for size in (110, 25_000):
        likely, ample = learned.of(size)
        assert abs(likely / (30 + size / 4) - 1) < 0.1
        assert likely <= ample < 1.2 * likely


def test_a_size_that_was_never_seen_is_like_the_others() -> None:
    """And after some answers, like itself."""
    learned = Ratio(ratio(2, 7))
    for _ in range(50):
        learned.learn(500, 1000)
    assert learned.of(100_000) == (50_000, 50_000)
    for _ in range(8):
        learned.learn(1_000, 100_000)
    assert learned.of(100_000) == (1_001, 1_001)
    assert learned.of(1000) == (500, 500)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), max_size=60), st.integers(1, 10**9))
def test_whatever_was_learned_it_is_a_number_of_tokens(pairs: list[tuple[int, int]], units: int) -> None:
    """At least one, the usual no more than the ample."""
    learned = Ratio(ratio(2, 7))
    for tokens, seen in pairs:
        learned.learn(tokens, seen)
    likely, ample = learned.of(units)
    assert 1 <= likely <= ample
