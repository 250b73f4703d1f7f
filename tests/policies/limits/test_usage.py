"""What is paid for, at which price, and what an engine cannot have used."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.limits.usage import Delivered, Price, Size, Used, clamped, is_plausible, without_false_cache
from policies.outcome import Ending

FAILURES = (Ending.FAILED, Ending.TIMED_OUT, Ending.SATURATED, Ending.CLIENT_ERROR)
CHAT = Size("generate", 4_000, most_output=500)


@pytest.mark.parametrize("ending", FAILURES)
def test_an_error_before_anything_came_is_free(ending: Ending) -> None:
    """Once something was delivered, it is not."""
    assert Delivered(ending, sent=True).free
    assert not Delivered(ending, sent=True, pieces=1).free
    assert not Delivered(ending, sent=True, body_bytes=1).free
    assert not Delivered(ending, sent=True, reported=Used(1, 1)).free


def test_a_client_that_leaves_pays_for_what_was_sent() -> None:
    """And for nothing that was not."""
    assert not Delivered(Ending.CLIENT_LEFT, sent=True).free
    assert Delivered(Ending.CLIENT_LEFT, sent=False).free


@given(st.floats(0, 1), st.integers(0, 10**9), st.floats(0, 1), st.integers(0, 10**9))
def test_a_price_is_rounded_up_and_never_above_full(
    weight: float, prompt: int, share: float, output: int
) -> None:
    """With a weight of 1 the cache changes nothing; with 0 what is cached is free."""
    cached = int(prompt * share)
    used = Used(prompt, output, cached)
    thousandths = Fraction(weight).limit_denominator(1000)
    assert Price(weight).tokens(used) == prompt - cached + output + ceil(cached * thousandths)
    assert Price().tokens(used) == prompt + output
    assert Price(0).tokens(used) == prompt - cached + output


@pytest.mark.parametrize(
    "reported",
    [
        Used(-1, 10),
        Used(10, -1),
        Used(10**12, 10),
        Used(10, 10**12),
        Used(0, 10),
        Used(1_000, 1_100),
    ],
)
def test_absurd_usage_is_seen(reported: Used) -> None:
    """Negative, impossibly large, no prompt at all, or twice what was allowed."""
    assert not is_plausible(reported, CHAT, 0)


def test_usage_that_may_be_true_is_believed() -> None:
    """A token a byte, all of what was allowed, several tokens a piece, or an image that has no bytes."""
    for reported in (Used(4_000, 500), Used(1, 0), Used(80_000, 1)):
        assert is_plausible(reported, CHAT, 0)
    assert is_plausible(Used(1_000, 500), CHAT, 100)
    assert is_plausible(Used(1_000, 100_000), Size("generate", 4_000), 0)
    assert is_plausible(Used(1_000, 2_000), CHAT._replace(answers=4), 0)


def test_less_than_was_delivered_is_absurd() -> None:
    """Five hundred pieces are not two tokens."""
    assert not is_plausible(Used(1_000, 2), CHAT, 500)


@given(
    st.integers(-(10**13), 10**13),
    st.integers(-(10**13), 10**13),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_what_is_clamped_lies_between_what_was_delivered_and_a_bound(
    prompt: int, output: int, sent: int, delivered: int, most: int
) -> None:
    """Where more was delivered than the bound, that counts; and nothing is ever negative."""
    used = clamped(Used(prompt, output), Used(sent, delivered), most)
    assert used.prompt_tokens >= sent
    assert used.output_tokens >= delivered
    assert used.prompt_tokens + used.output_tokens <= max(most, sent) + delivered
    assert (used.source, used.cached_tokens) == ("clamped", 0)


@pytest.mark.parametrize("cached", [-1, 11, 10**12])
def test_more_cached_than_there_was_is_no_discount(cached: int) -> None:
    """The rest of the report still counts."""
    assert without_false_cache(Used(10, 5, cached)) == Used(10, 5, 0)
    assert without_false_cache(Used(10, 5, 10)) == Used(10, 5, 10)
