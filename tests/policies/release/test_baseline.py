from random import Random

import pytest

from policies.release.baseline import WINDOW, Baseline


def fed(share: float, requests: int, baseline: Baseline | None = None, seed: int = 1) -> Baseline:
    chance, baseline = Random(seed), baseline or Baseline()
    for _ in range(requests):
        baseline.add(chance.random() < share)
    return baseline


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
def test_what_is_usual_is_not_degraded(share: float) -> None:
    chance, baseline, degraded = Random(2), Baseline(), 0
    for _ in range(10_000):
        baseline.add(chance.random() < share)
        degraded += baseline.degraded
    assert degraded == 0


def test_an_outage_is_seen_and_does_not_become_usual() -> None:
    baseline = fed(0.01, 2_000)
    usual = baseline.usual
    fed(0.4, 80, baseline)
    assert baseline.degraded
    fed(0.4, 5_000, baseline)
    assert baseline.degraded and baseline.usual < usual + 0.02
    fed(0.01, WINDOW, baseline)
    assert not baseline.degraded


def test_one_request_of_five_is_never_in_order() -> None:
    assert fed(0.3, 100).degraded
    assert not fed(0.3, 40).degraded  # too few to say


def test_it_goes_on_as_it_was() -> None:
    baseline, copy = fed(0.05, 700), Baseline()
    copy.restore(baseline.snapshot())
    assert fed(0.1, 300, copy).snapshot() == fed(0.1, 300, baseline).snapshot()
