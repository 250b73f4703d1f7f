"""Values among like ones: fair if the arms are equal, whatever values look like, and sharp if one is slow."""

from collections.abc import Callable
from math import exp, inf, nan
from random import Random

import pytest

from policies.release.observation import Observation
from policies.release.rank_test import (
    ODDS,
    OTHERS,
    RankTest,
    Strata,
    Values,
    rank_factor,
    stratum_of,
    values_of,
)


def seen(**changes: object) -> Observation:
    fields: dict[str, object] = {
        "canary": False,
        "share": 0.1,
        "at": 0.0,
        "unit": 1,
        "tenant": 1,
        "ordinal": 99,
    }
    return Observation(**{**fields, **changes})  # type: ignore[arg-type]


def ranked(
    draw: Callable[[Random], float], ratio: float, others: int, values: int, seed: int, **kind: bool
) -> RankTest:
    chance, test = Random(seed), RankTest(**kind)
    test.begin_step()
    for _ in range(values):
        test.add(ratio * draw(chance), [draw(chance) for _ in range(others)])
    return test


def times(chance: Random) -> float:
    return exp(chance.gauss(0, 0.6))


def few_whole_numbers(chance: Random) -> float:
    return chance.choice([1.0, 2.0, 2.0, 3.0])


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_places_are_equally_likely_so_their_factors_have_a_mean_of_one(count: int) -> None:
    for odds in ODDS:
        factors = [rank_factor(odds, count, rank) for rank in range(count + 1)]
        assert sum(factors) / (count + 1) == pytest.approx(1)
        assert factors == sorted(factors)
    assert rank_factor(3.0, 1, 1) == pytest.approx(2 * 3 / 4)


@pytest.mark.parametrize("draw", [times, few_whole_numbers])
@pytest.mark.parametrize("both", [False, True])
def test_money_does_not_grow_on_average_with_equal_arms(draw: Callable[[Random], float], both: bool) -> None:
    """Ties too: whole numbers are often equal."""
    money = [exp(ranked(draw, 1.0, 3, 6, seed, both=both)._bets.log_e) for seed in range(1_500)]
    mean = sum(money) / len(money)
    spread = (sum((value - mean) ** 2 for value in money) / len(money)) ** 0.5
    assert abs(mean - 1) < 4 * spread / len(money) ** 0.5


def test_a_slow_canary_is_found_and_a_fast_one_is_not() -> None:
    for seed in range(10):
        assert ranked(times, 1.5, 7, 250, seed)._bets.log_e > 7.6
        assert ranked(times, 0.7, 7, 250, seed)._bets.log_e < 0
        assert ranked(times, 0.7, 7, 250, seed, both=True)._bets.log_e > 7.6


def test_more_of_stable_to_compare_with_proves_more() -> None:
    pairs, eights = (sum(ranked(times, 1.3, n, 200, seed)._bets.log_e for seed in range(20)) for n in (1, 7))
    assert eights > 1.5 * pairs


def test_the_median_ratio_is_what_it_is() -> None:
    test = ranked(times, 1.3, 7, 1_500, 1)
    assert test.ratios.median() == pytest.approx(1.3, rel=0.06)
    assert test.stable.median() == pytest.approx(1.0, rel=0.06)
    assert test.others == 1_500 * 7


def test_an_even_number_of_others_leaves_the_oldest_out_and_none_teaches_nothing() -> None:
    even, odd, none = RankTest(), RankTest(), RankTest()
    for test, others in ((even, [9.0, 1.0, 2.0, 3.0]), (odd, [1.0, 2.0, 3.0]), (none, list[float]())):
        test.begin_step()
        test.add(2.5, others)
    assert even.snapshot() == odd.snapshot()
    assert none.ratios.count == 0


@pytest.mark.parametrize("odd", [None, 0.0, -1.0, nan, inf])
def test_what_is_no_time_was_not_measured(odd: float | None) -> None:
    assert values_of(seen(time_to_first_token_s=odd, inter_token_s=0.1)) == Values(None, 0.1, None)


def test_strata_part_what_is_to_compute_and_what_is_cached() -> None:
    assert stratum_of(seen()) == stratum_of(seen(prompt_tokens=0)) == 0
    cold = stratum_of(seen(prompt_tokens=1000))
    assert (
        cold == stratum_of(seen(prompt_tokens=600)) == stratum_of(seen(prompt_tokens=1000, cached_tokens=-5))
    )
    same_work = stratum_of(seen(prompt_tokens=10_000, cached_tokens=9_000))
    assert len({0, cold, same_work, stratum_of(seen(prompt_tokens=3000))}) == 4
    assert stratum_of(seen(prompt_tokens=10, cached_tokens=99)) == stratum_of(
        seen(prompt_tokens=10, cached_tokens=10)
    )
    every = {
        stratum_of(seen(prompt_tokens=p, cached_tokens=p * c // 9))
        for p in range(1, 300_000, 97)
        for c in range(10)
    }
    assert len(every) <= 57 and max(every) <= 57


def row(value: float) -> Values:
    return Values(value, value, value)


def test_each_of_stables_values_is_given_out_once_and_the_newest_first() -> None:
    strata = Strata()
    for value in range(20):
        strata.keep(3, 0, row(value))
    assert len(strata) == 8
    assert [one[0] for one in strata.take(3, 0, 0.01)] == list(range(13, 20))
    assert [one[0] for one in strata.take(3, 0, 0.01)] == [12]
    assert strata.take(3, 0, 0.01) == strata.take(4, 0, 0.01) == ()


@pytest.mark.parametrize(("share", "others"), [(0.01, 7), (0.1, 7), (0.25, 3), (0.4, 1), (0.5, 1), (0.9, 1)])
def test_as_many_are_taken_as_there_are_for_each(share: float, others: int) -> None:
    strata = Strata()
    for value in range(OTHERS):
        strata.keep(0, 0, row(value))
    assert len(strata.take(0, 0, share)) == others


def test_another_hour_is_another_stratum() -> None:
    strata = Strata()
    strata.keep(0, 5, row(1))
    assert strata.holds(0, 5) and not strata.holds(0, 6) and not strata.holds(1, 5)
    assert strata.take(0, 6, 0.1) == ()
    strata.keep(0, 6, row(2))
    assert list(strata.take(0, 6, 0.1)) == [row(2)]


def test_strata_and_tests_go_on_as_they_were() -> None:
    strata, copy = Strata(), Strata()
    for value in range(5):
        strata.keep(value, 0, row(value))
    copy.restore(strata.snapshot())
    assert copy.snapshot() == strata.snapshot()
    test, again = ranked(times, 1.2, 3, 30, 7), RankTest()
    again.restore(test.snapshot())
    for one in (test, again):
        one.add(3.0, [1.0, 2.0, 4.0])
    assert again.snapshot() == test.snapshot()
