from random import Random

from loadtest.release.rivals import FixedThreshold, PeekingZTest, Rival
from loadtest.release.traffic import Defect, Traffic, Witness


def alarmed(rival: Rival, defect: Defect, seed: int, requests: int) -> bool:
    traffic = Traffic(Witness.REQUEST, defect, Random(seed))
    for _ in range(requests):
        rival.observe(traffic.next(0.5))
    return rival.alarmed


def test_who_keeps_looking_at_a_z_test_sees_what_is_not_there() -> None:
    """Of equal canaries far more than the 1 % that it is a test at."""
    assert sum(alarmed(PeekingZTest(), Defect(), seed, 5_000) for seed in range(28)) >= 3


def test_a_fixed_threshold_takes_an_equal_canary_back_if_one_waits() -> None:
    assert not alarmed(FixedThreshold(), Defect(), 1, 1_000)
    assert alarmed(FixedThreshold(), Defect(), 1, 12_000)


def test_both_see_what_is_there() -> None:
    assert alarmed(PeekingZTest(), Defect(errors=0.1), 1, 2_000)
    assert alarmed(FixedThreshold(), Defect(errors=0.1), 1, 3_000)
