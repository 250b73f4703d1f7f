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
