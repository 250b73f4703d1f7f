"""`turnout_warm_join_requests_total`: prompts that the router itself sent to replicas with an empty cache."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from router.fleet.routes import Fleet


class WarmJoinCounts(Collector):
    """Reads the fleet when it is collected; versions that share a replica share its numbers."""

    def __init__(self, fleet: Callable[[], Fleet]) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        counts: Counter[tuple[str, str]] = Counter()
        for replica in self._fleet().replicas:
            for outcome, count in replica.warm_joins.items():
                counts[replica.id, outcome] += count
        family = CounterMetricFamily(
            "turnout_warm_join_requests",
            "Hot prompts sent to a replica that joined, by outcome: completed, stopped, or how they failed.",
            labels=("replica", "outcome"),
        )
        for labels, count in counts.items():
            family.add_metric(labels, count)
        yield family
