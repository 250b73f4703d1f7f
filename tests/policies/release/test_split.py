"""Splits: as accurate as promised, the same for a session whatever happens, and moved from stable alone."""

from collections import Counter
from math import erfc, sqrt

import pytest

from policies.release.split import WHOLE, Arm, Ramp, Split, apportion

SESSIONS = [f"tenant\x00session-{number}" for number in range(10_000)]
SALT = b"release-1"


def counted(split: Split, units: list[str] = SESSIONS) -> Counter[str]:
    return Counter(split.arm_of(unit).version for unit in units)


def test_everything_goes_to_stable_without_weights() -> None:
    split = Split("m", "v1")
    assert split.single == split.arm_of("anybody") == Arm("v1")
    assert split.weights == {"v1": WHOLE}


@pytest.mark.parametrize("percent", [0.5, 1, 5, 10, 25, 50, 75, 99])
@pytest.mark.parametrize("by", ["weights", "ramp"])
def test_a_share_is_accurate(percent: float, by: str) -> None:
    """Within 4.5 standard errors, over as many sessions as there are."""
    if by == "weights":
        split = Split("m", "v1", {"v1": 100 - percent, "v2": percent})
    else:
        split = Split("m", "v1", ramp=Ramp("v2", int(percent * 100), SALT))
    share = percent / 100
    error = sqrt(share * (1 - share) / len(SESSIONS))
    assert abs(counted(split)["v2"] / len(SESSIONS) - share) < 4.5 * error
    assert split.weights == {"v1": WHOLE - int(percent * 100), "v2": int(percent * 100)}


@pytest.mark.slow
@pytest.mark.parametrize("percent", [1, 5, 10, 25, 50, 75, 90, 95, 99])
def test_a_share_is_within_three_tenths_of_a_point(percent: int) -> None:
    """Over 100,000 sessions; for ten salts the chi-square statistic is what chance makes it."""
    sessions = [f"t\x00{number}" for number in range(100_000)]
    for salt in range(10):
        split = Split("m", "v1", ramp=Ramp("v2", percent * 100, b"salt-%d" % salt))
        canary, expected = counted(split, sessions)["v2"], percent * 1000
        assert salt or abs(canary / 1000 - percent) < 0.3
        chi_square = (canary - expected) ** 2 / (expected * (1 - percent / 100))
        assert erfc(sqrt(chi_square / 2)) > 1e-5


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_growing_canary_takes_from_stable_and_gives_nothing_back(count: int) -> None:
    sessions = [f"t\x00session-{number}" for number in range(count)]
    before = {unit: Split("m", "v1").arm_of(unit).version for unit in sessions}
    was = 0
    for percent in (1, 5, 25, 50, 100):
        split = Split("m", "v1", ramp=Ramp("v2", percent * 100, SALT))
        after = {unit: split.arm_of(unit).version for unit in sessions}
        moved = Counter((before[unit], after[unit]) for unit in sessions if before[unit] != after[unit])
        assert set(moved) == {("v1", "v2")}
        assert abs(moved["v1", "v2"] / count - (percent - was) / 100) < (0.015 if count < 100_000 else 0.003)
        before, was = after, percent
    assert set(before.values()) == {"v2"}


def test_growing_by_weights_takes_from_stable_alone_too() -> None:
    flips = Counter[tuple[str, str]]()
    before = Split("m", "v1", {"v1": 99, "v2": 1})
    for percent in (5, 25, 50, 99):
        after = Split("m", "v1", {"v1": 100 - percent, "v2": percent})
        flips.update((before.arm_of(unit).version, after.arm_of(unit).version) for unit in SESSIONS)
        before = after
    assert ("v2", "v1") not in flips


def test_a_canary_leaves_the_other_arms_of_a_split_alone() -> None:
    weights = {"v1": 60.0, "v3": 30.0, "v4": 10.0}
    plain, ramped = Split("m", "v1", weights), Split("m", "v1", weights, Ramp("v2", 2500, SALT))
    assert ramped.weights == {"v1": 4500, "v3": 3000, "v4": 1000, "v2": 1500}
    assert sum(ramped.weights.values()) == WHOLE
    for unit in SESSIONS:
        was, now = plain.arm_of(unit), ramped.arm_of(unit)
        assert now.compared == (was.version == "v1")
        assert was.version == now.version or (was.version, now) == (
            "v1",
            Arm("v2", canary=True, compared=True),
        )


def test_layers_are_independent() -> None:
    """Who is in the canary says nothing of who was in the other release's."""
    first, second = (Split("m", "v1", ramp=Ramp("v2", 5000, salt)) for salt in (b"a", b"b"))
    both = sum(first.arm_of(unit).canary and second.arm_of(unit).canary for unit in SESSIONS)
    assert abs(both / len(SESSIONS) - 0.25) < 0.015


@pytest.mark.parametrize("odd", ["", "\x00", "\ud800", "ü" * 600])
def test_any_unit_has_an_arm(odd: str) -> None:
    split = Split("m", "v1", ramp=Ramp("v2", 5000, b"s" * 100))
    assert split.arm_of(odd) == split.arm_of(odd)


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 3334, "b": 3333, "c": 3333}),
        ({"a": 1e-9, "b": 1e9}, {"a": 0, "b": WHOLE}),
        ({"a": 95.0, "b": 5.0}, {"a": 9500, "b": 500}),
    ],
)
def test_parts_add_up(weights: dict[str, float], parts: dict[str, int]) -> None:
    assert apportion(weights) == parts
