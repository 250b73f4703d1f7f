"""`turnout_queued_requests`: who waits in the router, because all replicas of a version are saturated."""

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.fleet.routes import Fleet


class QueueGauge(Collector):
    """Reads the fleet when it is collected."""

    def __init__(self, fleet: Callable[[], Fleet]) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "turnout_queued_requests",
            "Requests that wait in the router, because all replicas of the version are saturated.",
            labels=("model", "version"),
        )
        for labels, pool in self._fleet().pools.items():
            family.add_metric(labels, pool.queued)
        yield family
