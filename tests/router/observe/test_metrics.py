"""What the metrics say, read back the way Prometheus reads them."""

import tracemalloc

import pytest
from msgspec.structs import replace
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from policies.resilience.retry import RetryBudget
from router.api.request import Usage
from router.fleet.pools import Pool
from router.fleet.routes import Fleet, Route
from router.observe.events import GAP_BOUNDS_S, Attempt, Finished
from router.observe.exposition import render
from router.observe.metrics import ConfigState, RouterMetrics
from router.observe.series import MAX_WORDS
from tests.support.bare_replicas import HASHER, First

HISTOGRAMS = {
    "turnout_time_to_first_token_seconds",
    "turnout_inter_token_seconds",
    "turnout_request_seconds",
    "turnout_router_overhead_seconds",
    "turnout_queue_wait_seconds",
}


def fleet(*names: tuple[str, str]) -> Fleet:
    routes = {f"{m}@{v}": Route(m, v, Pool((), First(), RetryBudget(0.1, 3), HASHER)) for m, v in names}
    return Fleet(routes, {}, {}, ())


def router_metrics(*names: tuple[str, str]) -> RouterMetrics:
    known = fleet(*(names or (("m", "v1"), ("m", "v2"))))
    return RouterMetrics(lambda: known)


FINISHED = Finished(
    at=1_700_000_000.0,
    request_id="r-1",
    path="/v1/chat/completions",
    model="m",
    version="v1",
    engine="vllm",
    replica="a:8000",
    stream=True,
    status=200,
    outcome="ok",
    attempts=(Attempt("a:8000", "first", "completed", 0.2),),
    duration_s=3.0,
    overhead_s=0.00018,
    queue_wait_s=0.02,
    time_to_first_token_s=0.21,
    gaps=(0,) * 3 + (5, 1) + (0,) * (len(GAP_BOUNDS_S) - 4),
    gap_sum_s=0.06,
    usage=Usage(prompt_tokens=100, completion_tokens=7, cached_tokens=64),
    finish_reason="stop",
    bytes_in=900,
    bytes_out=2000,
)


def families(metrics: RouterMetrics) -> dict[str, Metric]:
    return {
        family.name: family for family in text_string_to_metric_families(render(metrics.collect()).decode())
    }


def value(metrics: RouterMetrics, sample: str, **labels: str) -> float | None:
    """The one sample of that name whose labels are exactly these."""
    found = [
        each.value
        for family in families(metrics).values()
        for each in family.samples
        if each.name == sample and each.labels == labels
    ]
    assert len(found) <= 1, f"{sample}{labels} is there {len(found)} times"
    return found[0] if found else None


def sample_count(metrics: RouterMetrics) -> int:
    return sum(len(family.samples) for family in families(metrics).values())


def test_a_finished_request_is_counted_everywhere() -> None:
    """One request shows up in every metric that its event has a number for."""
    metrics = router_metrics()
    metrics(FINISHED)
    three = {"model": "m", "version": "v1", "engine": "vllm"}
    assert value(metrics, "turnout_requests_total", **three, outcome="ok") == 1
    assert value(metrics, "turnout_request_seconds_sum", **three) == 3.0
    assert value(metrics, "turnout_time_to_first_token_seconds_sum", **three) == 0.21
    assert value(metrics, "turnout_inter_token_seconds_count", **three) == 6
    assert value(metrics, "turnout_inter_token_seconds_sum", **three) == 0.06
    assert value(metrics, "turnout_router_overhead_seconds_count", model="m") == 1
    assert value(metrics, "turnout_queue_wait_seconds_sum", model="m") == 0.02
    assert value(metrics, "turnout_tokens_total", model="m", version="v1", kind="prompt") == 100
    assert value(metrics, "turnout_tokens_total", model="m", version="v1", kind="cached") == 64
    assert value(metrics, "turnout_tokens_total", model="m", version="v1", kind="completion") == 7
    assert value(metrics, "turnout_attempts_total", model="m", version="v1", reason="first") == 1


def test_buckets_are_cumulative_and_closed() -> None:
    """A value on a bound is inside that bucket, one above all bounds is in `+Inf` only."""
    metrics = router_metrics()
    for seconds in (0.05, 0.0500001, 10_000.0):
        metrics(replace(FINISHED, duration_s=seconds))
    buckets = {
        each.labels["le"]: each.value
        for each in families(metrics)["turnout_request_seconds"].samples
        if each.name.endswith("_bucket")
    }
    assert buckets["0.05"] == 1
    assert buckets["0.1"] == 2
    assert buckets["900.0"] == 2
    assert buckets["+Inf"] == 3
    assert list(buckets.values()) == sorted(buckets.values())


def test_gap_buckets_stand_where_the_stream_counted_them() -> None:
    """The counts of `Finished.gaps` are those of the histogram's own buckets, in order."""
    metrics = router_metrics()
    gaps = tuple(range(1, len(GAP_BOUNDS_S) + 2))
    metrics(replace(FINISHED, gaps=gaps))
    buckets = [
        each.value
        for each in families(metrics)["turnout_inter_token_seconds"].samples
        if each.name.endswith("_bucket")
    ]
    assert buckets == [sum(gaps[: i + 1]) for i in range(len(gaps))]


def test_counts_add_up_over_engines() -> None:
    """Metrics without an engine label hold the sum of all engines."""
    metrics = router_metrics()
    for engine in ("vllm", "tgi", "tgi"):
        metrics(replace(FINISHED, engine=engine))
    assert value(metrics, "turnout_tokens_total", model="m", version="v1", kind="completion") == 21
    assert value(metrics, "turnout_attempts_total", model="m", version="v1", reason="first") == 3
    assert value(metrics, "turnout_router_overhead_seconds_count", model="m") == 3


def test_retries_are_counted_by_what_failed_before() -> None:
    """Each attempt counts once, under the reason it was made for."""
    metrics = router_metrics()
    again = (
        Attempt("a", "first", "failed", 0.1),
        Attempt("b", "upstream_reset", "timed_out", 0.1),
        Attempt("c", "first_token_timeout", "completed", 0.1),
    )
    metrics(replace(FINISHED, attempts=again))
    for reason in ("first", "upstream_reset", "first_token_timeout"):
        assert value(metrics, "turnout_attempts_total", model="m", version="v1", reason=reason) == 1


def test_a_request_that_was_refused_early_counts_without_names() -> None:
    """An unknown model has no series of its own: its labels are empty."""
    metrics = router_metrics()
    metrics(
        Finished(
            at=1.0,
            request_id="r",
            path="/v1/chat/completions",
            status=404,
            outcome="model_not_found",
            duration_s=0.001,
            overhead_s=0.001,
        )
    )
    labels = {"model": "", "version": "", "engine": "", "outcome": "model_not_found"}
    assert value(metrics, "turnout_requests_total", **labels) == 1
    assert value(metrics, "turnout_time_to_first_token_seconds_count", model="", version="", engine="") == 0


def test_a_known_model_without_a_version_keeps_its_name() -> None:
    """A request that was refused before a version was chosen counts for its model."""
    metrics = router_metrics()
    metrics(replace(FINISHED, version="", engine="", outcome="queue_full"))
    labels = {"model": "m", "version": "", "engine": "", "outcome": "queue_full"}
    assert value(metrics, "turnout_requests_total", **labels) == 1


@pytest.mark.parametrize("field", ["model", "path", "request_id", "replica", "finish_reason", "error"])
def test_what_clients_send_never_adds_a_series(field: str) -> None:
    """Ten thousand different names leave the number of series where it was."""
    metrics = router_metrics()
    metrics(FINISHED)
    metrics(replace(FINISHED, **{field: "unknown"}))
    before = sample_count(metrics)
    for i in range(10_000):
        metrics(replace(FINISHED, **{field: f"name-{i}"}))
    assert sample_count(metrics) == before


def test_unknown_names_take_no_memory() -> None:
    """The second ten thousand unknown models leave nothing behind."""
    metrics = router_metrics()
    unknown = [replace(FINISHED, model=f"name-{i}") for i in range(10_000)]
    metrics(unknown[0])
    tracemalloc.start()
    for event in unknown:
        metrics(event)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 50_000


def test_a_flood_of_words_is_capped() -> None:
    """Outcomes are a closed set; if a defect opens it, the number of series stays bounded."""
    metrics = router_metrics()
    for i in range(1000):
        metrics(replace(FINISHED, outcome=f"code-{i}"))
    outcomes = families(metrics)["turnout_requests"].samples
    assert len(outcomes) == MAX_WORDS + 1
    assert sum(each.value for each in outcomes) == 1000


def test_a_version_that_comes_later_gets_its_series() -> None:
    """Names are looked up in the fleet of the moment, and counters survive the change."""
    current = [fleet(("m", "v1"))]
    metrics = RouterMetrics(lambda: current[0])
    metrics(FINISHED)
    metrics(replace(FINISHED, version="v9"))
    current[0] = fleet(("m", "v9"))
    metrics(replace(FINISHED, version="v9"))
    metrics(FINISHED)
    known = {"model": "m", "engine": "vllm", "outcome": "ok"}
    assert value(metrics, "turnout_requests_total", version="v9", **known) == 1
    assert value(metrics, "turnout_requests_total", version="v1", **known) == 2


def test_the_configuration_in_force_is_shown() -> None:
    """Generation and failed reload are read at the scrape, not copied before."""
    config = ConfigState()
    metrics = RouterMetrics(fleet, config)
    assert value(metrics, "turnout_config_generation") == 1
    assert value(metrics, "turnout_config_reload_failed") == 0
    config.generation, config.reload_failed = 7, True
    assert value(metrics, "turnout_config_generation") == 7
    assert value(metrics, "turnout_config_reload_failed") == 1


def test_dropped_log_lines_are_shown_where_there_is_a_log() -> None:
    """The count is the log's own at the moment of the scrape; without a log there is no such metric."""
    lost = [0]
    metrics = RouterMetrics(fleet, dropped_log_lines=lambda: lost[0])
    assert value(metrics, "turnout_access_log_dropped_lines_total") == 0
    lost[0] = 7
    assert value(metrics, "turnout_access_log_dropped_lines_total") == 7
    assert value(RouterMetrics(fleet), "turnout_access_log_dropped_lines_total") is None


def test_every_family_says_what_it_is() -> None:
    """Each has a help text and the type that its name promises."""
    metrics = router_metrics()
    metrics(FINISHED)
    found = families(metrics)
    assert found.keys() >= HISTOGRAMS
    for name, family in found.items():
        assert name.startswith("turnout_")
        assert family.documentation
        assert (family.type == "histogram") == (name in HISTOGRAMS)
