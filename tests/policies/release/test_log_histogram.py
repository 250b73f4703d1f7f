"""Quantiles from counts: as near as promised, in bounded room, and the same wherever they were counted."""

from random import Random

import pytest

from policies.release.log_histogram import ACCURACY, LEAST, MOST, LogHistogram


def of(values: list[float]) -> LogHistogram:
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_quantiles_are_as_near_as_promised(share: float) -> None:
    random = Random(1)
    values = sorted(random.lognormvariate(0, 2) for _ in range(2001))
    exact = values[int(share * 2000)]
    found = of(values).quantile(share)
    assert found is not None
    assert abs(found - exact) <= ACCURACY * exact * 1.001


def test_it_takes_bounded_room_whatever_comes() -> None:
    """Nothing, less than the least and more than the most included."""
    random = Random(2)
    histogram = of([10 ** random.uniform(-30, 30) for _ in range(20_000)] + [0.0, -1.0])
    assert len(histogram.counts) < 1300
    assert histogram.total == 20_002
    assert histogram.quantile(0.0) == pytest.approx(LEAST, rel=0.02)
    assert histogram.quantile(1.0) == pytest.approx(MOST, rel=0.02)


def test_two_add_up_to_what_one_would_have_counted() -> None:
    random = Random(3)
    values = [random.expovariate(3) for _ in range(500)]
    one, other = of(values[:200]), of(values[200:])
    one.merge(other)
    assert one == of(values)


def test_of_nothing_there_is_no_quantile() -> None:
    assert LogHistogram().quantile(0.5) is None
