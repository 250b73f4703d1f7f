"""The retry budget keeps what it promises."""

import pytest

from policies.resilience.retry import BURST, RetryBudget


def spent(budget: RetryBudget, times: list[float]) -> int:
    return sum(budget.spend(now) for now in times)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.5])
def test_in_the_long_run_retries_are_a_share_of_the_requests(ratio: float) -> None:
    """Ten thousand requests that all fail: their share, and the burst, and not one more."""
    budget = RetryBudget(ratio, floor_per_s=0)
    retries = 0
    for _ in range(10_000):
        budget.earn()
        retries += budget.spend(1000.0)
    assert retries == pytest.approx(10_000 * ratio + BURST, abs=2)


def test_a_quiet_pool_may_retry_at_its_floor() -> None:
    """Three a second, however few requests there are, and never saved up beyond a second's worth."""
    budget = RetryBudget(0.0, floor_per_s=3)
    assert spent(budget, [5000.0] * 10) == 3
    assert spent(budget, [5000.0 + i / 10 for i in range(1, 101)]) == pytest.approx(30, abs=1)
    assert spent(budget, [9000.0] * 10) == 3


def test_one_replica_that_dies_is_covered_by_the_burst() -> None:
    """The requests that it had are all retried at once."""
    budget = RetryBudget(0.1, floor_per_s=3)
    assert spent(budget, [77.0] * 13) == 13
    assert not budget.spend(77.0)


def test_nothing_saved_is_beyond_the_burst() -> None:
    """A good hour does not pay for a bad one."""
    budget = RetryBudget(0.5, floor_per_s=0)
    for _ in range(100_000):
        budget.earn()
    assert spent(budget, [1.0] * 100) == BURST
