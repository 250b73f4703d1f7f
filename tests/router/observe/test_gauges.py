"""The gauges of replicas, read back the way Prometheus reads them."""

import dataclasses

from prometheus_client.parser import text_string_to_metric_families

from router.engines.engine import ReplicaLoad
from router.fleet.figures import Figure, Figures
from router.fleet.leases import Lease
from router.fleet.replicas import Replica
from router.observe.exposition import render
from router.observe.gauges import LABELS, ReplicaGauges
from tests.support.bare_replicas import fleet, replica

UNKNOWN = Figures(
    running_requests=None,
    waiting_requests=None,
    prefill_tokens_per_s=None,
    decode_tokens_per_s=None,
    batch_utilisation=None,
    gpu_utilisation=None,
    kv_usage_ratio=None,
    prefix_hit_ratio=None,
    queue_wait_s=None,
    stale=True,
    restarted=False,
)
KNOWN = Figures(
    running_requests=Figure(1, "engine"),
    waiting_requests=Figure(2, "router"),
    prefill_tokens_per_s=Figure(3, "engine"),
    decode_tokens_per_s=Figure(4, "engine"),
    batch_utilisation=Figure(0.5, "engine"),
    gpu_utilisation=Figure(0.6, "engine"),
    kv_usage_ratio=Figure(0.7, "engine"),
    prefix_hit_ratio=Figure(0.8, "engine"),
    queue_wait_s=Figure(0, "engine"),
    stale=False,
    restarted=False,
)


def scraped(
    figures: dict[Replica, Figures], *replicas: Replica, now: float = 0.0
) -> dict[str, dict[str, float]]:
    """Metric to replica to value; the other labels are checked on the way."""
    gauges = ReplicaGauges(lambda: fleet(*replicas), figures.get, lambda: now)
    by_id = {each.id: each for each in replicas}
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(render(gauges.collect()).decode()):
        found[family.name] = {}
        for sample in family.samples:
            own = by_id[sample.labels["replica"]]
            expected = (own.identity.model, own.identity.version, own.id, own.engine.kind)
            assert sample.labels == dict(zip(LABELS, expected, strict=True))
            found[family.name][own.id] = sample.value
    return found


def test_the_figures_are_there_for_every_engine() -> None:
    """A figure is the same metric whichever engine and whoever measured it; 0 is a value."""
    engines = [replica(f"http://{kind}", engine=kind) for kind in ("vllm", "tgi", "trtllm", "triton")]
    found = scraped(dict.fromkeys(engines, KNOWN), *engines)
    ids = [each.id for each in engines]
    for name, value in {
        "running_requests": 1,
        "waiting_requests": 2,
        "prefill_tokens_per_second": 3,
        "decode_tokens_per_second": 4,
        "batch_utilisation": 0.5,
        "gpu_utilisation": 0.6,
        "kv_usage_ratio": 0.7,
        "prefix_hit_ratio": 0.8,
        "queue_wait_seconds": 0,
    }.items():
        assert found[f"turnout_replica_{name}"] == dict.fromkeys(ids, value), name


def test_unknown_is_absent_and_not_zero() -> None:
    """Without figures, or with unknown ones, only what the router itself knows has a sample."""
    never_read, silent = replica("http://a"), replica("http://b")
    found = scraped({silent: UNKNOWN}, never_read, silent)
    present = {name for name, values in found.items() if values}
    assert present == {"turnout_replica_up", "turnout_replica_verified", "turnout_replica_in_flight"}


def test_state_is_of_the_moment() -> None:
    """Health, requests in flight and the age of the metrics are read at the scrape."""
    one = replica("http://a")
    lease = Lease(one)
    one.up = False
    one.load, one.load_at = ReplicaLoad(), 10.0
    found = scraped({}, one, now=12.5)
    assert found["turnout_replica_up"] == {"a": 0}
    assert found["turnout_replica_in_flight"] == {"a": 1}
    assert found["turnout_replica_metrics_age_seconds"] == {"a": 2.5}
    lease.close(None, 0.0)
    assert scraped({}, one)["turnout_replica_in_flight"] == {"a": 0}


def test_every_figure_has_a_gauge() -> None:
    """A figure that is added one day cannot be forgotten here."""
    one = replica("http://a")
    numbers = [
        field.name for field in dataclasses.fields(Figures) if field.name not in ("stale", "restarted")
    ]
    present = [name for name, values in scraped({one: KNOWN}, one).items() if values]
    assert len(present) == len(numbers) + 3


def test_a_replica_of_two_versions_has_two_series() -> None:
    """The same process under two versions is told apart by its labels."""
    v1, v2 = replica("http://a", version="v1"), replica("http://a", version="v2")
    gauges = ReplicaGauges(lambda: fleet(v1, v2), {}.get, lambda: 0.0)
    [up] = [each for each in gauges.collect() if each.name == "turnout_replica_up"]
    assert [sample.labels["version"] for sample in up.samples] == ["v1", "v2"]
