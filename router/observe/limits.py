"""How the place where limits are counted is, for Prometheus. What they said is counted with the requests."""

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from router.control.limits.store import StoreState

_GAUGES = (
    ("healthy", "turnout_limit_store_up", "1 while limits are counted where they should be."),
    ("shares", "turnout_limit_store_shares", "Processes among which limits are divided while it is away."),
    ("unsettled", "turnout_limit_store_unsettled", "Settlements that wait to be written."),
)
_COUNTERS = (
    ("lost", "turnout_limit_store_lost", "Times that it went away."),
    ("resets", "turnout_limit_store_resets", "Times that it had lost all buckets."),
    ("unknown", "turnout_limit_store_unknown", "Settlements of reservations that it no longer knew."),
    ("dropped", "turnout_limit_store_dropped", "Settlements that were given up."),
)


class LimitStoreMetrics(Collector):
    """`state` gives None where nothing is limited."""

    def __init__(self, state: Callable[[], StoreState | None]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        if state is None:
            return
        for field, name, about in _GAUGES:
            yield GaugeMetricFamily(name, about, value=float(getattr(state, field)))
        for field, name, about in _COUNTERS:
            yield CounterMetricFamily(name, about, value=getattr(state, field))
