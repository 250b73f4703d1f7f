"""Buckets as times: what is sold is never more than what is earned, and hardly less."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.limits.ask import ADMITTED, Ask, Budget, Slots
from policies.limits.gcra import Rate, decide

RATES = st.floats(min_value=0.1, max_value=1e8, allow_nan=False)


def test_a_full_bucket_holds_its_burst() -> None:
    assert Rate(600, 60).capacity == 600
    assert Rate(600, 1).capacity == 10
    assert Rate(0.5, 120).capacity == 1
    assert Rate(0.5, 60).capacity == 0


@given(rate=RATES, units=st.integers(1, 10**7))
def test_a_cost_is_the_time_that_earns_it_rounded_up(rate: float, units: int) -> None:
    exact = Fraction(60_000_000) * units / Fraction(rate)

    cost_us = Rate(rate, 60).cost_us(units)

    assert exact <= cost_us < exact + 1


@given(rate=RATES, units=st.integers(1, 10**7))
def test_the_time_that_something_costs_earns_it(rate: float, units: int) -> None:
    bucket = Rate(rate, 60)

    assert bucket.units(bucket.cost_us(units)) >= units


def test_an_idle_bucket_admits_its_burst_and_then_one_by_one() -> None:
    rate = Rate(60, 10)
    ask = Ask("", [Budget("b", rate.cost_us(1), rate.window_us)])
    tat_us, admitted = 0, 0
    for _ in range(20):
        verdict = decide(ask, [tat_us], [], 0)
        if verdict.admitted:
            tat_us, admitted = verdict.backlogs_us[0], admitted + 1

    assert admitted == 10
    assert decide(ask, [tat_us], [], 0).wait_us == 1_000_000
    assert not decide(ask, [tat_us], [], 999_999).admitted
    assert decide(ask, [tat_us], [], 1_000_000).admitted


@given(
    burst_s=st.floats(0.5, 120),
    per_minute=st.floats(30, 1e6),
    seed=st.integers(0, 2**32),
)
def test_no_window_gets_more_than_its_burst_and_what_it_earned(
    burst_s: float, per_minute: float, seed: int
) -> None:
    rate, random = Rate(per_minute, burst_s), Random(seed)
    now_us, tat_us = 0, 0
    history: list[tuple[int, int]] = []
    for _ in range(60):
        now_us += random.choice((0, random.randrange(1, 3 * rate.window_us)))
        units = random.randint(1, max(1, rate.capacity))
        if rate.cost_us(units) > rate.window_us:
            continue
        verdict = decide(Ask("", [Budget("b", rate.cost_us(units), rate.window_us)]), [tat_us], [], now_us)
        if verdict.admitted:
            tat_us = now_us + verdict.backlogs_us[0]
            history.append((now_us, units))

    for begin, (since_us, _) in enumerate(history):
        used = 0
        for until_us, units in history[begin:]:
            used += units
            earned = Fraction(per_minute) * (rate.window_us + until_us - since_us) / 60_000_000
            assert used <= earned


def test_waiting_as_long_as_told_is_enough_and_one_microsecond_less_is_not() -> None:
    rate = Rate(1000, 6)
    ask = Ask("", [Budget("b", rate.cost_us(70), rate.window_us)])
    refused = decide(ask, [5_000_000], [], 0)

    assert not refused.admitted
    assert decide(ask, [5_000_000], [], refused.wait_us).admitted
    assert not decide(ask, [5_000_000], [], refused.wait_us - 1).admitted


def test_the_tightest_budget_speaks() -> None:
    ask = Ask("", [Budget("a", 10, 100), Budget("b", 10, 100), Budget("c", 10, 100)])

    verdict = decide(ask, [95, 190, 120], [], 0)

    assert verdict.refused == 1
    assert verdict.wait_us == 100
    assert list(verdict.backlogs_us) == [95, 190, 120]


def test_slots_refuse_when_all_are_held_and_nothing_is_taken() -> None:
    ask = Ask("", [Budget("a", 10, 100)], [Slots("s", 2), Slots("t", 1)])

    admitted = decide(ask, [0], [1, 0], 0)
    refused = decide(ask, [0], [1, 1], 0)

    assert admitted.refused == ADMITTED
    assert list(admitted.held) == [2, 1]
    assert refused.refused == 2
    assert list(refused.backlogs_us) == [0]
    assert list(refused.held) == [1, 1]


@pytest.mark.parametrize("per_minute", [7, 600, 1e6])
def test_a_thousand_requests_a_second_lose_a_thousandth_to_rounding_at_most(per_minute: float) -> None:
    """One unit's cost is rounded up by less than a microsecond of the bucket's time."""
    rate = Rate(per_minute, 60)
    for units in (1, 13, 999):
        lost_us = rate.cost_us(units) - Fraction(60_000_000) * units / Fraction(per_minute)
        assert 0 <= lost_us < 1
