"""The `turnout_kv_events_*` metrics: how well replicas that say what they cache are heard."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from router.fleet.kv_figures import KvFigures
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.observe.gauges import LABELS, labels_of

_GAUGES: Final = {
    "listeners": ("listeners", "Processes that listen to the replica; each counts for itself."),
    "connected": ("connected", "1 if all of these are connected to it."),
    "known_blocks": (
        "known_blocks",
        "The engine's blocks known to be cached, by the process that knows least.",
    ),
    "last_event_age_s": ("last_event_age_seconds", "Time since the last events, of who has waited longest."),
    "lag_s": ("lag_seconds", "Age of the last events when they came; only engines that publish tell."),
}
_COUNTERS: Final = {
    "connections": ("connections", "Connections that came about."),
    "events": ("received", "Events that were understood."),
    "stored_blocks": ("stored_blocks", "Blocks that it said it stored, of the router's size."),
    "removed_blocks": ("removed_blocks", "Blocks that it said it dropped, of the router's size."),
    "orphan_blocks": ("orphan_blocks", "Blocks of no use, because what they follow is not known."),
    "gaps": ("gaps", "Times that events were missing."),
    "losses": ("losses", "Times that they could not be had any more, so that its cache was unknown."),
    "replays": ("replays", "Times that it was asked to say something again."),
    "failed_replays": ("failed_replays", "Times that it did not."),
    "restarts": ("restarts", "Times that it began anew."),
    "unreadable": ("unreadable_messages", "Messages that could not be read."),
}
"""By field of `KvFigures`: the metric, and what it is."""


class KvEventMetrics(Collector):
    """Reads the figures when it is collected; a replica without events has no sample."""

    def __init__(self, fleet: Callable[[], Fleet], figures: Callable[[Replica], KvFigures | None]) -> None:
        self._fleet = fleet
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        rows = [
            (labels_of(replica), figures)
            for replica in self._fleet().replicas
            if (figures := self._figures(replica)) is not None
        ]
        for field, (name, about) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"turnout_kv_events_{name}", about, labels=LABELS)
            for labels, figures in rows:
                value = getattr(figures, field)
                if value is not None:
                    gauge.add_sample(gauge.name, labels, float(value))
            yield gauge
        for field, (name, about) in _COUNTERS.items():
            counter = CounterMetricFamily(f"turnout_kv_events_{name}", about, labels=LABELS)
            for labels, figures in rows:
                counter.add_sample(f"{counter.name}_total", labels, getattr(figures, field))
            yield counter
