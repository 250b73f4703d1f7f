from math import inf

from loadtest.engine.histograms import Buckets, one_two_five


def test_values_fall_into_their_buckets() -> None:
    """A value equal to a bound belongs to it; the last bucket takes the rest."""
    buckets = Buckets((1.0, 2.0))
    buckets.add_all([0.5, 1.0, 1.5, 9.0])
    histogram = buckets.histogram()
    assert histogram.buckets == ((1.0, 2), (2.0, 3), (inf, 4))
    assert (histogram.count, histogram.total) == (4, 12.0)


def test_one_two_five() -> None:
    """The bounds of token counts, up to the limit."""
    assert one_two_five(60) == (1, 2, 5, 10, 20, 50)
