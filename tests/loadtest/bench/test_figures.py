"""Quantiles and the figures derived from a run."""

import msgspec

from loadtest.bench.figures import Quantiles, RunFigures, quantiles

NOTHING = Quantiles(0, None, None)
FIGURES = RunFigures(
    window_s=2.0,
    requests=900,
    chunks=1800,
    errors={},
    router_cpu_s=1.5,
    client_cpu_s=0.6,
    upstream_cpu_s=0.8,
    router_core_busy_s=1.9,
    load_core_busy_s=2.0,
    latency=NOTHING,
    first_event=NOTHING,
    chunk_delay=NOTHING,
)


def test_quantiles_are_values_that_were_measured() -> None:
    """Nearest rank: of 1 to 200, the 100th and the 198th; of one value, that value."""
    assert quantiles(list(range(200, 0, -1))) == Quantiles(200, 100, 198)
    assert quantiles([7]) == Quantiles(1, 7, 7)
    assert quantiles([]) == NOTHING


def test_rates_are_per_cpu_second_of_the_router() -> None:
    """Not per second of the wall clock; shares are of the window."""
    assert (FIGURES.requests_per_cpu_s, FIGURES.chunks_per_cpu_s) == (600, 1200)
    assert (FIGURES.router_share, FIGURES.load_share) == (0.75, 0.7)
    assert round(FIGURES.foreign_share, 3) == 0.25


def test_without_a_router_there_is_no_rate() -> None:
    """A client that goes straight to the replicas uses no router CPU; a division by zero would not say so."""
    direct = msgspec.structs.replace(FIGURES, router_cpu_s=0.0)
    assert (direct.requests_per_cpu_s, direct.chunks_per_cpu_s) == (None, None)
