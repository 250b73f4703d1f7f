"""Bounds of harm: they hold at all times together, and are as narrow as promised."""

from random import Random

import pytest

from policies.release.harm import Tally, least_added, log_against, lower, most_added, mostly_below, upper


def ever_missed(chance: Random, share: float, requests: int) -> bool:
    """Whether a bound was beyond the truth at any look."""
    bad = 0
    for count in range(1, requests):
        bad += chance.random() < share
        if count % 20 == 0 and log_against(share, bad, count) >= 5.3:
            return True
    return False


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_bounds_hold_at_all_looks_together(share: float) -> None:
    """1 in 200 may miss."""
    chance = Random(1)
    assert sum(ever_missed(chance, share, 1_500) for _ in range(150)) <= 4


def test_bounds_are_where_the_evidence_says() -> None:
    for bad, count in ((0, 300), (3, 300), (12, 1_200), (40, 100)):
        high, low = upper(bad, count), lower(bad, count)
        assert low <= bad / count <= high
        assert log_against(high, bad, count) == pytest.approx(5.52, abs=0.05)
    assert upper(0, 0) == 1 and lower(0, 0) == lower(0, 50) == pytest.approx(0, abs=1e-9)


def test_they_narrow_with_what_is_seen() -> None:
    widths = [upper(count // 100, count) - lower(count // 100, count) for count in (100, 1_000, 10_000)]
    assert widths[0] > 2.5 * widths[1] > 6 * widths[2]


@pytest.mark.parametrize(
    ("margin", "canary", "stable"), [(0.05, 300, 29_700), (0.03, 700, 13_300), (0.01, 8_000, 8_000)]
)
def test_equal_arms_are_within_the_steps_margin_after_so_many(
    margin: float, canary: int, stable: int
) -> None:
    own, other = Tally(canary, canary // 100, canary // 100), Tally(stable, stable // 100, stable // 100)
    assert 0 < most_added(own, other, 1.0) <= margin
    assert least_added(own, other, 1.0) < 0


def test_a_canary_that_adds_errors_is_never_within() -> None:
    own, other = Tally(1_000, 110, 110), Tally(1_000, 10, 10)
    assert least_added(own, other, 1.0) > 0.04
    assert most_added(own, other, 1.0) > 0.1


def test_errors_that_come_together_count_as_the_units_that_they_come_from() -> None:
    """As many bad requests from a fifth as many sessions: less is known, so more is possible."""
    other = Tally(50_000, 500, 100)
    alone = most_added(Tally(1_000, 10, 10), Tally(50_000, 500, 500), 1.0)
    assert most_added(Tally(1_000, 10, 2), other, 5.0) > alone


def test_a_median_below_is_proved_by_enough_of_them() -> None:
    assert mostly_below(70, 250)
    assert not mostly_below(120, 250)
    assert not mostly_below(180, 250)
    assert not mostly_below(0, 0) and not mostly_below(1, 5)
