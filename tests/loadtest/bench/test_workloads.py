"""Choosing workloads by name."""

import pytest

from loadtest.bench.workloads import WORKLOADS, workloads_named


def test_the_table_is_chosen_from_by_name() -> None:
    """In the table's order; W2 means both its forms."""
    assert [w.name for w in workloads_named("W4, W2,W1")] == ["W1", "W2s", "W2u", "W4"]
    assert [w.name for w in workloads_named("W2u")] == ["W2u"]
    assert workloads_named("W1,W2,W3,W4,W5") == WORKLOADS


def test_an_unknown_name_is_refused() -> None:
    """The message says what there is."""
    with pytest.raises(ValueError, match="unknown workload 'W9'; there are W1, W2, W2s"):
        workloads_named("W1,W9")
