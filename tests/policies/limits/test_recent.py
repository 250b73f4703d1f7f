"""Quantiles of the last numbers: right, bounded, and quick to follow a change."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.limits.recent import Recent


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=300), st.integers(1, 64))
def test_quantiles_are_those_of_some_recent_window(values: list[int], size: int) -> None:
    """They are numbers that were added, in order, and lie within what the last window and an eighth hold."""
    recent = Recent(size)
    for value in values:
        recent.add(value)
    lately = [min(value, 2**32 - 1) for value in values[-(size + size // 8 + 1) :]]
    assert recent.count == min(len(values), size)
    assert min(lately) <= recent.middle <= recent.high <= max(lately)
    assert {recent.middle, recent.high} <= set(lately)


def test_of_one_distribution_they_come_out() -> None:
    """Of 1 to 1000 evenly: about 500 and 900, on the average over many windows."""
    recent, rng = Recent(128), Random(1)
    middles, highs = [], []
    for _ in range(20_000):
        recent.add(rng.randint(1, 1000))
        middles.append(recent.middle)
        highs.append(recent.high)
    assert sum(middles) / len(middles) == pytest.approx(500, rel=0.03)
    assert sum(highs) / len(highs) == pytest.approx(900, rel=0.03)


def test_a_window_later_the_past_is_forgotten() -> None:
    """However long it lasted."""
    recent = Recent(64)
    for value in [10] * 10_000 + [1000] * 72:
        recent.add(value)
    assert (recent.middle, recent.high) == (1000, 1000)


def test_nothing_is_nothing() -> None:
    """Before the first number."""
    recent = Recent()
    assert (recent.count, recent.middle, recent.high) == (0, 0, 0)
