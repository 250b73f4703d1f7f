"""Evidence that may be looked at at any time: fair if nothing is wrong, and quick if something is."""

from math import exp, inf, log
from random import Random

import pytest

from policies.release.betting import RISKS, ArmsTest, Bets


def peak(chance: Random, share: float, actual: float, events: int, *, both: bool = False) -> float:
    """The greatest e-value at any time, if `actual` of the events come from the canary."""
    test = ArmsTest(both=both)
    test.stake()
    most = 0.0
    for _ in range(events):
        test.add(chance.random() < actual, share)
        most = max(most, test.money)
    return most


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("both", [False, True])
def test_a_fair_event_leaves_every_alternative_what_it_has(share: float, both: bool) -> None:
    """Exactly: the mean of the factors over both arms is 1."""
    outcomes = []
    for canary in (True, False):
        test = ArmsTest(both=both)
        test.stake()
        before = test.snapshot()
        test.add(canary, share)
        outcomes.append([after / was for after, was in zip(test.snapshot(), before, strict=True)])
    of_canary, of_stable = outcomes
    for won, lost in zip(of_canary, of_stable, strict=True):
        assert share * won + (1 - share) * lost == pytest.approx(1)


def test_money_does_not_grow_on_average_however_shares_change() -> None:
    """The mean e-value after 30 fair events, at shares that rise as a release does, is 1 within its error."""
    chance = Random(1)
    values = []
    for _ in range(4_000):
        test = ArmsTest([1.5, 2.0])
        for share in (0.05, 0.25, 0.5):
            test.stake()
            for _ in range(10):
                test.add(chance.random() < share, share)
        values.append(test.money)
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    assert abs(mean - 1) < 4 * spread / len(values) ** 0.5


def test_one_in_twenty_is_one_in_twenty_however_often_one_looks() -> None:
    """Ville: e reaches 20 at any of 300 looks with a chance of 1 in 20 at most."""
    chance = Random(2)
    reached = sum(peak(chance, 0.1, 0.1, 300) >= 20 for _ in range(600))
    assert reached <= 600 / 20


def test_a_worse_canary_is_found_and_a_better_one_is_not() -> None:
    chance = Random(3)
    assert all(peak(chance, 0.05, 0.37, 60) > 400 for _ in range(50))
    assert all(peak(chance, 0.5, 0.3, 400) < 20 for _ in range(50))
    assert peak(chance, 0.5, 0.3, 400, both=True) > 400


def test_trouble_that_begins_late_is_found_since_every_step_stakes_anew() -> None:
    """1,500 events in which nothing is wrong, then ten times as many from the canary."""

    def events_until_found(stakes: int) -> int:
        chance, test = Random(4), ArmsTest()
        test.stake()
        for _ in range(1_500):
            test.add(chance.random() < 0.1, 0.1)
        for _ in range(stakes):
            test.stake()
        for events in range(1, 2_000):
            test.add(chance.random() < 10 / 19, 0.1)
            if test.money >= 400:
                return events
        return 2_000

    assert events_until_found(1) < 30 < events_until_found(0)


def test_a_share_of_one_teaches_nothing() -> None:
    test = ArmsTest()
    test.stake()
    for _ in range(100):
        test.add(True, 1.0)
    assert test.log_e == pytest.approx(0)


def test_no_number_becomes_infinite_and_none_is_lost() -> None:
    bets = Bets(1)
    bets.stake()
    for _ in range(2_000):
        bets.settle([100.0])
    assert 400 < bets.log_e < inf
    for _ in range(3_000):
        bets.stake()
        bets.settle([0.0])
    assert -inf < bets.log_e <= 0


def test_what_is_stored_goes_on_as_it_was() -> None:
    chance, test, copy = Random(5), ArmsTest(), ArmsTest()
    test.stake()
    for _ in range(40):
        test.add(chance.random() < 0.2, 0.1)
    copy.restore(test.snapshot())
    for one in (test, copy):
        one.add(True, 0.1)
    assert copy.snapshot() == test.snapshot() and copy.log_e == test.log_e
    assert test.log_e == pytest.approx(log(test.money)) and exp(test.log_e) > 0
    assert len(test.snapshot()) == 1 + len(RISKS)
