from math import exp
from random import Random

import pytest

from policies.release.value_metric import ValueMetric


def heard(ratio: float, values: int, *, both: bool = False, seed: int = 1) -> ValueMetric:
    chance, metric = Random(seed), ValueMetric("time_to_first_token", 0.0005, both=both)
    metric.begin_step()
    for _ in range(values):
        metric.heard(ratio * exp(chance.gauss(0, 0.6)), [exp(chance.gauss(0, 0.6)) for _ in range(7)])
    return metric


def test_slow_and_beyond_the_margin() -> None:
    metric = heard(1.5, 300)
    assert metric.speaks and metric.harmful(1.1) and not metric.ruled_out(1.1)
    found = metric.evidence()
    assert found.canary_n == 300 and found.stable_n == 2_100 and found.log_e >= found.threshold
    assert found.canary_value is not None and found.stable_value is not None
    assert found.canary_value / found.stable_value == pytest.approx(1.5, rel=0.15)


def test_slower_within_the_margin_is_no_harm_however_sure_it_is() -> None:
    metric = heard(1.15, 3_000)
    assert metric.speaks and not metric.harmful(1.3) and metric.ruled_out(1.3)


def test_equal_is_proved_by_enough_values_only() -> None:
    assert not heard(1.0, 20).ruled_out(1.5)
    assert heard(1.0, 300).ruled_out(1.5)
    assert not heard(1.0, 300).ruled_out(1.02)


def test_too_short_is_harm_where_both_are() -> None:
    assert heard(0.5, 300, both=True).harmful(1.25) and not heard(0.5, 300).harmful(1.25)
    assert not heard(0.5, 300, both=True).ruled_out(1.25)
    assert heard(1.0, 1_500, both=True).ruled_out(1.25)


def test_a_step_is_judged_by_its_own_values() -> None:
    metric = heard(1.0, 1_500)
    metric.begin_step()
    assert not metric.ruled_out(1.5)
    for _ in range(30):
        metric.heard(2.0, [1.0, 0.9, 1.1])
    assert metric.harmful(1.1)


def test_nothing_measured_says_nothing() -> None:
    metric = heard(1.0, 0)
    assert metric.evidence().canary_value is None and not metric.harmful(1.1) and not metric.ruled_out(9.0)
