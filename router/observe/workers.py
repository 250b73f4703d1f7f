"""The `turnout_worker_*` gauges: the processes of a router of several."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from router.control.reports import WorkerReport


class WorkerGauges(Collector):
    """`reports` are the newest of every worker; a worker's number is its label, and its successor's."""

    def __init__(self, reports: Callable[[], Sequence[WorkerReport]]) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        reports = self._reports()
        yield GaugeMetricFamily("turnout_workers", "Workers that serve now.", value=len(reports))
        cpu = CounterMetricFamily("turnout_worker_cpu_seconds", "Processor time.", labels=["worker"])
        memory = GaugeMetricFamily("turnout_worker_resident_bytes", "Memory in use.", labels=["worker"])
        peers = GaugeMetricFamily(
            "turnout_sharing_peers", "Other workers and routers that it hears.", labels=["worker"]
        )
        dropped = CounterMetricFamily(
            "turnout_sharing_dropped_messages", "Messages to others that did not go out.", labels=["worker"]
        )
        for report in reports:
            label = [str(report.number)]
            cpu.add_metric(label, report.cpu_s)
            memory.add_metric(label, report.resident_bytes)
            peers.add_metric(label, report.peers)
            dropped.add_metric(label, report.dropped_messages)
        yield from (cpu, memory, peers, dropped)
