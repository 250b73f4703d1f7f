"""The canary's share of units, watched at any time."""

from random import Random

from policies.release.sample_ratio import SampleRatio


def units_until_wrong(chance: Random, share: float, actual: float, units: int) -> int | None:
    ratio = SampleRatio()
    for number in range(units):
        ratio.add(chance.getrandbits(64), chance.random() < actual, share)
        if ratio.wrong:
            return number
    return None


def test_a_split_that_is_right_raises_no_alarm() -> None:
    chance = Random(1)
    assert [units_until_wrong(chance, share, share, 5_000) for share in (0.01, 0.05, 0.25, 0.5)] == [None] * 4


def test_seven_per_cent_are_not_five() -> None:
    chance = Random(2)
    found = [units_until_wrong(chance, 0.05, 0.07, 12_000) for _ in range(4)]
    assert all(number is not None for number in found)


def test_units_of_the_canary_that_are_lost_are_missed() -> None:
    found = units_until_wrong(Random(3), 0.25, 0.1, 5_000)
    assert found is not None and found < 1_000


def test_a_unit_counts_once_however_many_requests_it_makes() -> None:
    ratio = SampleRatio()
    for _ in range(500):
        ratio.add(7, True, 0.05)
    assert (ratio.units, ratio.canary) == (1, 1) and not ratio.wrong


def test_each_step_is_judged_by_itself() -> None:
    ratio = SampleRatio()
    for unit in range(300):
        ratio.add(unit, True, 0.05)
    assert ratio.wrong
    ratio.begin_step()
    assert not ratio.wrong and ratio.units == 0
