"""Releases as Prometheus series, so that others can watch them, or decide in the router's place."""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from policies.release.split import WHOLE
from router.control.releases.office import Office
from router.fleet.routes import Fleet


class ReleaseMetrics:
    """`fleet` gives the fleet in force."""

    def __init__(self, fleet: Callable[[], Fleet], office: Office) -> None:
        self._fleet = fleet
        self._office = office

    def collect(self) -> Iterator[Metric]:
        weights = GaugeMetricFamily(
            "turnout_release_weight",
            "Share of the plain name's traffic that a version has, 0 to 1.",
            labels=("model", "version"),
        )
        evidence = GaugeMetricFamily(
            "turnout_release_evidence",
            "Evidence against a canary, as the logarithm of an e-value; at its threshold it is rolled back.",
            labels=("model", "version", "metric"),
        )
        for model, traffic in self._fleet().traffic.items():
            for version, weight in traffic.weights.items():
                weights.add_metric((model, version), weight / WHOLE)
            if traffic.release.under_way and traffic.release.canary is not None:
                for one in self._office.controller.evidence(model):
                    evidence.add_metric((model, traffic.release.canary, one.metric), one.log_e)
        yield weights
        yield evidence
