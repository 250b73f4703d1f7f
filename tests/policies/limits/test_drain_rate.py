"""How fast a queue drains: over the time in which somebody waits, and of late."""

import pytest

from policies.limits.drain_rate import DrainRate

NOW = 1_000.0


def drained(
    tokens_per_s: float, seconds: float, rate: DrainRate | None = None, now: float = NOW
) -> DrainRate:
    """Ten times a second."""
    rate = rate or DrainRate()
    rate.waits(now)
    for step in range(int(10 * seconds)):
        rate.took(tokens_per_s / 10, now + (step + 1) / 10)
    return rate


def test_nothing_is_promised_before_it_was_seen() -> None:
    """Neither at first nor after a moment; nor while nothing moves."""
    assert DrainRate().wait_s(100, NOW) is None
    assert drained(100, 0.3).wait_s(100, NOW + 0.3) is None
    stuck = DrainRate()
    stuck.waits(NOW)
    assert stuck.wait_s(100, NOW + 60) is None


@pytest.mark.parametrize("tokens_per_s", [1.0, 5_000.0])
def test_a_steady_rate_is_known(tokens_per_s: float) -> None:
    """Soon, and after long."""
    for seconds in (1, 100):
        wait_s = drained(tokens_per_s, seconds).wait_s(10 * tokens_per_s, NOW + seconds)
        assert wait_s == pytest.approx(10, rel=0.05)


def test_it_follows_a_change() -> None:
    """After half a minute the new rate is most of it."""
    rate = drained(100, 60)
    drained(1_000, 30, rate, NOW + 60)
    assert rate.wait_s(1_000, NOW + 90) == pytest.approx(1, rel=0.1)


def test_time_without_a_queue_does_not_count() -> None:
    """An hour of calm does not make the fleet slow."""
    rate = drained(100, 20)
    rate.rests(NOW + 20)
    rate.waits(NOW + 3_620)
    assert rate.wait_s(100, NOW + 3_620) == pytest.approx(1, rel=0.05)
