"""The metrics of KV events, read back the way Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from router.fleet.kv_figures import COUNTS, KvFigures
from router.fleet.replicas import Replica
from router.observe.exposition import render
from router.observe.gauges import LABELS
from router.observe.kv_events import KvEventMetrics
from tests.support.bare_replicas import fleet, replica

KNOWN = KvFigures(
    listeners=2,
    connected=True,
    known_blocks=30,
    events_per_s=1.5,
    last_event_age_s=2.5,
    lag_s=0.25,
    **{name: number for number, name in enumerate(COUNTS)},
)


def scraped(figures: dict[Replica, KvFigures], *replicas: Replica) -> dict[str, dict[str, float]]:
    """Sample to replica to value; labels and help texts are checked on the way."""
    metrics = KvEventMetrics(lambda: fleet(*replicas), figures.get)
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(render(metrics.collect()).decode()):
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert set(sample.labels) == set(LABELS)
            found.setdefault(sample.name, {})[sample.labels["replica"]] = sample.value
    return found


def test_every_figure_is_a_metric() -> None:
    """But the rate, which Prometheus makes of a count."""
    one = replica("http://a")
    values = {name: each["a"] for name, each in scraped({one: KNOWN}, one).items()}
    assert values == {
        "turnout_kv_events_listeners": 2,
        "turnout_kv_events_connected": 1,
        "turnout_kv_events_known_blocks": 30,
        "turnout_kv_events_last_event_age_seconds": 2.5,
        "turnout_kv_events_lag_seconds": 0.25,
        "turnout_kv_events_connections_total": 0,
        "turnout_kv_events_received_total": 1,
        "turnout_kv_events_stored_blocks_total": 2,
        "turnout_kv_events_removed_blocks_total": 3,
        "turnout_kv_events_orphan_blocks_total": 4,
        "turnout_kv_events_gaps_total": 5,
        "turnout_kv_events_losses_total": 6,
        "turnout_kv_events_replays_total": 7,
        "turnout_kv_events_failed_replays_total": 8,
        "turnout_kv_events_restarts_total": 9,
        "turnout_kv_events_unreadable_messages_total": 10,
    }


def test_what_is_not_heard_has_no_sample() -> None:
    """A replica without events has none at all; one that has told nothing yet has no age, and counts of 0."""
    silent, fresh = replica("http://a"), replica("http://b")
    found = scraped({fresh: KvFigures()}, silent, fresh)
    assert {tuple(each) for each in found.values()} == {("b",)}
    assert "turnout_kv_events_last_event_age_seconds" not in found
    assert found["turnout_kv_events_connected"] == {"b": 0}
    assert found["turnout_kv_events_received_total"] == {"b": 0}
