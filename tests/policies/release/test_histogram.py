from math import exp
from random import Random

import pytest

from policies.release.histogram import Histogram, of_ratios, of_values


@pytest.mark.parametrize("made", [of_ratios, of_values])
def test_the_median_is_within_a_cell(made: object) -> None:
    assert callable(made)
    chance, histogram = Random(1), made()
    values = [exp(chance.gauss(0, 0.5)) for _ in range(1_001)]
    for value in values:
        histogram.add(value)
    assert histogram.median() == pytest.approx(sorted(values)[500], rel=0.05)


def test_nothing_has_no_median() -> None:
    assert of_values().median() is None


def test_the_outermost_cells_hold_all_beyond() -> None:
    histogram = Histogram(0.01, 11, 5)
    for value in (1e-300, 1e300, 1.0):
        histogram.add(value)
    assert histogram.count == sum(histogram.snapshot()) == 3
    assert histogram.at_least(0.5) == 3 and histogram.at_least(1.0) == 2 and histogram.at_least(2.0) == 1


def test_at_least_never_counts_too_few() -> None:
    histogram = of_ratios()
    values = [0.5 + number / 500 for number in range(500)]
    for value in values:
        histogram.add(value)
    for limit in (0.8, 1.0, 1.1, 1.25):
        exact = sum(value >= limit for value in values)
        assert exact <= histogram.at_least(limit) <= exact + 10


def test_it_goes_on_as_it_was() -> None:
    histogram, copy = of_values(), of_values()
    for number in range(1, 50):
        histogram.add(number)
    copy.restore(histogram.snapshot())
    assert copy.median() == histogram.median() and copy.count == 49
    copy.clear()
    assert copy.count == 0 and sum(copy.snapshot()) == 0
