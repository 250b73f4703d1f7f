"""The fast writer says the same as prometheus_client's own."""

import math
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from router.observe.exposition import number, render


class Source:
    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> tuple[Metric, ...]:
        return self._families


def assert_same(*families: Metric) -> None:
    assert render(families) == generate_latest(Source(*families))


def test_all_three_types_are_written_alike() -> None:
    """A counter, a gauge and a histogram come out byte for byte as prometheus_client writes them."""
    counter = CounterMetricFamily("a_things", "Things.", labels=("kind", "also"))
    counter.add_metric(("x", "1"), 3)
    counter.add_metric(("y", "2"), 4.5)
    gauge = GaugeMetricFamily("b_level", "A level.", value=-0.25)
    histogram = HistogramMetricFamily("c_seconds", "Time.", labels=("who",))
    histogram.add_metric(("me",), [("0.1", 1.0), ("+Inf", 2.0)], 7.5)
    assert_same(counter, gauge, histogram)


@given(st.text(), st.text())
def test_any_text_is_escaped_alike(value: str, documentation: str) -> None:
    """Quotes, line feeds and back slashes in labels and help texts come out as prometheus_client's do."""
    gauge = GaugeMetricFamily("level", documentation.encode(errors="replace").decode(), labels=("b", "a"))
    gauge.add_metric((value.encode(errors="replace").decode(), "x"), 1)
    assert_same(gauge)


@given(st.floats())
def test_any_number_is_read_back(value: float) -> None:
    """What a parser reads is the number that was written."""
    gauge = GaugeMetricFamily("level", "A level.", value=value)
    [family] = text_string_to_metric_families(render([gauge]).decode())
    read = family.samples[0].value
    assert read == value or (math.isnan(read) and math.isnan(value))
    assert number(math.inf) == "+Inf"


def test_labels_of_families_that_are_gone_are_not_mixed_up() -> None:
    """Families made one after the other, each freed before the next, keep their own labels."""

    def one_at_a_time() -> Iterator[Metric]:
        for i in range(200):
            gauge = GaugeMetricFamily(f"level_{i}", "A level.", labels=("i",))
            gauge.add_metric((str(i),), i)
            yield gauge

    for family in text_string_to_metric_families(render(one_at_a_time()).decode()):
        assert family.samples[0].labels == {"i": str(int(family.samples[0].value))}
