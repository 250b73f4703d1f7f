"""The three exporters' habits, beyond what the dialects' golden files show."""

from math import inf

from loadtest.engine.exposition_wire import (
    CPP,
    PYTHON,
    RUST,
    Metric,
    Registry,
    cpp_number,
    exposition,
    rust_number,
)

CATALOGUE = {
    "waits": Metric("histogram", "Waits", (0.5, 1.0)),
    "hits": Metric("counter"),
    "size": Metric("gauge"),
}


def test_a_family_exists_once_something_was_recorded() -> None:
    """An unused registry is empty text, and one count brings one family."""
    registry = Registry(CATALOGUE)
    assert exposition(registry.families(), RUST) == b""
    registry.add("hits", err="dropped")
    registry.add("hits", 2, err="dropped")
    assert exposition(registry.families(), RUST) == b'# TYPE hits counter\nhits{err="dropped"} 3\n\n'


def test_a_histogram_counts_cumulatively_in_each_style() -> None:
    """Values fall into the first bucket that holds them; the exporters differ in numbers and order."""
    registry = Registry(CATALOGUE, common=(("who", "me"),))
    for value in (0.5, 0.75, 3.0):
        registry.observe("waits", value)
    assert exposition(registry.families(), PYTHON).decode().splitlines()[2:] == [
        'waits_bucket{le="0.5",who="me"} 1.0',
        'waits_bucket{le="1.0",who="me"} 2.0',
        'waits_bucket{le="+Inf",who="me"} 3.0',
        'waits_count{who="me"} 3.0',
        'waits_sum{who="me"} 4.25',
    ]
    assert exposition(registry.families(), RUST).decode().splitlines()[2:-1] == [
        'waits_bucket{who="me",le="0.5"} 1',
        'waits_bucket{who="me",le="1"} 2',
        'waits_bucket{who="me",le="+Inf"} 3',
        'waits_sum{who="me"} 4.25',
        'waits_count{who="me"} 3',
    ]


def test_a_gauge_keeps_its_last_value() -> None:
    """Setting twice leaves one sample."""
    registry = Registry(CATALOGUE)
    registry.set("size", 3)
    registry.set("size", 0)
    assert exposition(registry.families(), CPP) == b"# TYPE size gauge\nsize 0\n"


def test_rust_never_writes_an_exponent() -> None:
    """Rust's `Display` spells small numbers out."""
    assert [rust_number(value) for value in (1e-05, 1.787e9, 73.5, inf)] == [
        "0.00001",
        "1787000000",
        "73.5",
        "+Inf",
    ]
    assert [cpp_number(value) for value in (0.1, 1787000000, 0.87)] == ["0.1", "1787000000", "0.87"]
