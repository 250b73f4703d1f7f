"""From samples to medians, ratios and verdicts."""

import msgspec
import pytest

from loadtest.bench.figures import Quantiles, RunFigures
from loadtest.bench.run import Sample
from loadtest.bench.summary import Spread, rows_of, spread, unit_of, verdicts_of
from loadtest.bench.workloads import workloads_named

(W1,) = workloads_named("W1")
(W4,) = workloads_named("W4")
PEER = "vllm-router:round_robin"
BASE = RunFigures(
    window_s=1.0,
    requests=100,
    chunks=0,
    errors={},
    router_cpu_s=1.0,
    client_cpu_s=0.3,
    upstream_cpu_s=0.3,
    router_core_busy_s=1.0,
    load_core_busy_s=0.7,
    latency=Quantiles(100, 10.0, 20.0),
    first_event=Quantiles(0, None, None),
    chunk_delay=Quantiles(0, None, None),
)


def samples(workload: str, candidate: str, requests: list[int], **changes: object) -> list[Sample]:
    """One sample a round, with these requests in one CPU-second."""
    return [
        Sample(
            number,
            0,
            workload,
            candidate,
            msgspec.structs.replace(BASE, requests=r, chunks=10 * r, **changes),
            4,
        )
        for number, r in enumerate(requests, start=1)
    ]


def test_a_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    """Medians 400 and 200 make 2; in single rounds it was 1 at worst and 4 at best."""
    data = samples("W1", "turnout", [200, 400, 800]) + samples("W1", PEER, [200, 100, 300])
    turnout, peer = rows_of(W1, ["turnout", PEER], data)
    assert turnout.requests_per_cpu_s == Spread(200, 400, 800)
    assert peer.ratio == 2
    assert peer.paired_ratio == Spread(1, pytest.approx(8 / 3), 4)
    assert turnout.chunks_per_cpu_s is None


def test_without_turnout_there_is_no_ratio() -> None:
    """Peers may be measured alone."""
    (row,) = rows_of(W1, ["turnout", PEER], samples("W1", PEER, [100, 200]))
    assert (row.ratio, row.paired_ratio) == (None, None)


def test_a_round_without_its_pair_counts_in_the_median_only() -> None:
    """Turnout missed the second round."""
    data = samples("W1", "turnout", [300]) + samples("W1", PEER, [100, 200])
    (row,) = rows_of(W1, [PEER], data)
    assert row.paired_ratio == Spread(3, 3, 3)
    assert row.ratio == 2


def test_at_a_fixed_token_rate_chunks_are_compared() -> None:
    """W4 counts chunks, W1 requests; rows come in the order asked for."""
    assert (unit_of(W1), unit_of(W4)) == ("requests", "chunks")
    data = samples("W4", PEER, [100]) + samples("W4", "turnout", [50], router_cpu_s=0.25)
    turnout, peer = rows_of(W4, ["turnout", PEER], data)
    assert (turnout.candidate, turnout.chunks_per_cpu_s) == ("turnout", Spread(2000, 2000, 2000))
    assert peer.ratio == 2


@pytest.mark.parametrize(
    ("router_cpu_s", "load_core_busy_s", "bound"), [(0.5, 0.99, True), (0.5, 0.8, False), (0.99, 0.99, False)]
)
def test_a_full_load_core_is_told_from_a_full_router(
    router_cpu_s: float, load_core_busy_s: float, bound: bool
) -> None:
    """Only when the router had time left did the load hold it up."""
    (row,) = rows_of(
        W1,
        [PEER],
        samples("W1", PEER, [9, 9, 9], router_cpu_s=router_cpu_s, load_core_busy_s=load_core_busy_s),
    )
    assert row.load_bound is bound


def test_errors_add_up_over_the_rounds() -> None:
    """By kind."""
    (row,) = rows_of(W1, [PEER], samples("W1", PEER, [1, 1], errors={"status 503": 2}))
    assert row.errors == {"status 503": 4}


def test_verdicts_are_given_for_what_was_measured() -> None:
    """Level is enough on W4, a third more is asked on W1; what has no peer has no verdict."""
    rows = [
        *rows_of(W1, ["turnout", PEER], samples("W1", "turnout", [125]) + samples("W1", PEER, [100])),
        *rows_of(W4, ["turnout", PEER], samples("W4", "turnout", [95]) + samples("W4", PEER, [100])),
    ]
    verdicts = {verdict.goal.workload: (verdict.measured, verdict.holds) for verdict in verdicts_of(rows)}
    assert verdicts == {"W1": (1.25, False), "W4": (0.95, True)}


def test_a_spread_of_nothing_is_nothing() -> None:
    """None in some rounds is left out; None in all of them is None."""
    assert spread([None, 3.0, 1.0, 2.0]) == Spread(1, 2, 3)
    assert spread([None]) is None
