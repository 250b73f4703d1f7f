"""Figures of a feed."""

import pytest

from router.fleet.kv_feed import FeedFigures


def test_a_steady_rate_is_found_and_fades() -> None:
    """Ten events a second, for a minute; then none."""
    figures = FeedFigures()
    for tenth in range(600):
        figures.count(1, tenth / 10)
    assert figures.events_per_s(60) == pytest.approx(10, rel=0.02)
    assert figures.events_per_s(90) == pytest.approx(0.5, rel=0.05)
    assert (figures.batches, figures.events) == (600, 600)


def test_the_age_is_that_of_the_last_batch() -> None:
    """Before the first there is none; a batch without events is one."""
    figures = FeedFigures()
    assert figures.last_age_s(7.0) is None
    figures.count(0, 5.0)
    assert (figures.last_age_s(7.0), figures.last_age_s(4.9)) == (2.0, 0.0)


def test_what_is_wrong_is_one_sentence() -> None:
    """The worst of it; some junk among what is understood is none of it."""
    figures = FeedFigures(source="tcp://a:1", failure="it is off")
    assert figures.trouble == "its KV events cannot be heard: it is off"
    figures.failure = ""
    assert figures.trouble == "its KV events are not heard: there is no connection to tcp://a:1"
    figures.connected = True
    assert figures.trouble == ""
    figures.unreadable = 1
    assert figures.trouble == "its KV events cannot be read: tcp://a:1 sends what no known engine does"
    figures.count(1, 0.0)
    assert figures.trouble == ""
