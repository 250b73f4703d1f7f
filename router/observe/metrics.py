"""The `turnout_*` metrics: counts every finished request, and renders what it counted at a scrape.

Labels are names from the configuration and words of closed sets only: whatever a client sends, it
never adds a series.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from router.config.history import ConfigState
from router.fleet.routes import Fleet
from router.observe.events import Finished
from router.observe.exposition import number
from router.observe.series import MAX_LIMIT_WORDS, OTHER, Histogram, Series, Words

Key = tuple[str, str, str]
"""Model, version, engine."""


@runtime_checkable
class Mirrors(Protocol):
    """A policy that predicts how much of a prompt is cached, and is told how much was."""

    @property
    def predicted_tokens(self) -> float: ...
    @property
    def reported_tokens(self) -> float: ...


class RouterMetrics(Collector):
    """An observer, a few microseconds a request, and the collector of what it observed.

    `more` are collected with it (see `router.observe.gauges`). Not safe for threads: count and collect
    on one event loop.
    """

    def __init__(
        self,
        fleet: Callable[[], Fleet],
        config: ConfigState | None = None,
        more: Iterable[Collector] = (),
        *,
        dropped_log_lines: Callable[[], int] | None = None,
    ) -> None:
        self.config = config or ConfigState()
        self._fleet = fleet
        self._dropped_log_lines = dropped_log_lines
        self._more = tuple(more)
        self._series: dict[Key, Series] = {}
        self._known: tuple[Fleet | None, frozenset[tuple[str, str]]] = (None, frozenset())

    def __call__(self, event: Finished) -> None:
        series = self._series.get((event.model, event.version, event.engine))
        if series is None:
            series = self._begin(event)
        series.count(event)

    @property
    def series(self) -> Mapping[Key, Series]:
        """All that was counted."""
        return self._series

    def replace(self, series: Mapping[Key, Series]) -> None:
        """Show these counts, which others made."""
        self._series = dict(series)

    def collect(self) -> Iterator[Metric]:
        yield from self._request_metrics()
        yield from self._own_metrics()
        for collector in self._more:
            yield from collector.collect()

    def _begin(self, event: Finished) -> Series:
        """A new series for names that the fleet knows; all others share one."""
        key = event.model, event.version, event.engine
        if event.model and (event.model, event.version) not in self._known_versions():
            key = OTHER, "", ""
        return self._series.setdefault(key, Series())

    def _known_versions(self) -> frozenset[tuple[str, str]]:
        fleet = self._fleet()
        if self._known[0] is not fleet:
            versions = frozenset((route.model, route.version) for route in fleet.routes.values())
            self._known = fleet, versions | {(model, "") for model, _ in versions}
        return self._known[1]

    def _request_metrics(self) -> Iterator[Metric]:
        for name, about, read in _HISTOGRAMS:
            yield _histogram(name, about, ("model", "version", "engine"), self._sum(read, size=3))
        for name, about, read in _MODEL_HISTOGRAMS:
            yield _histogram(name, about, ("model",), self._sum(read, size=1))
        requests = CounterMetricFamily(
            "turnout_requests",
            "Requests by outcome: ok, client_left, or the code of the error that the client saw.",
            labels=("model", "version", "engine", "outcome"),
        )
        attempts: dict[tuple[str, str, str], int] = {}
        tokens: dict[tuple[str, str, str], int] = {}
        for (model, version, engine), series in self._series.items():
            for outcome, count in series.outcomes.counts.items():
                requests.add_metric((model, version, engine, outcome), count)
            for reason, count in series.attempts.counts.items():
                _add(attempts, (model, version, reason), count)
            _add(tokens, (model, version, "prompt"), series.prompt_tokens)
            _add(tokens, (model, version, "cached"), series.cached_tokens)
            _add(tokens, (model, version, "completion"), series.completion_tokens)
        yield requests
        yield self._limit_decisions()
        yield from self._prefix_metrics()
        yield _counter(
            "turnout_tokens",
            "Tokens that the engines reported; prompt tokens include the cached ones.",
            ("model", "version", "kind"),
            tokens,
        )
        yield _counter(
            "turnout_attempts",
            "Attempts at a replica by reason: first, or the error code of the attempt before.",
            ("model", "version", "reason"),
            attempts,
        )

    def _limit_decisions(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            "turnout_limit_decisions",
            "What each limit said: admitted, refused, exceeds (more than it ever holds), stopped (a stream).",
            labels=("limit", "decision"),
        )
        sums = Words(most=MAX_LIMIT_WORDS)
        for series in self._series.values():
            for word, count in series.limits.counts.items():
                sums.add(word, count)
        for word, count in sums.counts.items():
            family.add_metric(word.partition(" ")[::2], count)
        return family

    def _prefix_metrics(self) -> Iterator[Metric]:
        """Of versions whose policy mirrors caches: what it promised, and what there was."""
        predicted: dict[tuple[str, ...], float] = {}
        reported: dict[tuple[str, ...], float] = {}
        for version, pool in self._fleet().pools.items():
            if isinstance(pool.policy, Mirrors):
                predicted[version] = pool.policy.predicted_tokens
                reported[version] = pool.policy.reported_tokens
        for name, about, counts in (
            ("predicted", "Cached tokens that the router expected, of answers whose engine said.", predicted),
            ("reported", "Cached tokens that the engines then reported of these.", reported),
        ):
            yield _counter(f"turnout_prefix_{name}_tokens", about, ("model", "version"), counts)

    def _sum(self, read: Callable[[Series], Histogram], size: int) -> dict[tuple[str, ...], Histogram]:
        """Histograms by the first `size` parts of their key, the others added up."""
        sums: dict[tuple[str, ...], Histogram] = {}
        for key, series in self._series.items():
            one = read(series)
            labels = key[:size]
            if labels not in sums:
                sums[labels] = Histogram(one.bounds)
            sums[labels].merge(one.counts, one.total)
        return sums

    def _own_metrics(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "turnout_config_generation",
            "Number of the configuration in force, counting up from 1.",
            value=self.config.generation,
        )
        yield GaugeMetricFamily(
            "turnout_config_reload_failed",
            "1 while the last reload was refused and the configuration before it stays.",
            value=float(self.config.reload_failed),
        )
        if self._dropped_log_lines is not None:
            yield CounterMetricFamily(
                "turnout_access_log_dropped_lines",
                "Requests whose line could not be written, because its target was full or blocked.",
                value=self._dropped_log_lines(),
            )


_HISTOGRAMS: tuple[tuple[str, str, Callable[[Series], Histogram]], ...] = (
    (
        "turnout_time_to_first_token_seconds",
        "From the request's last byte in to the answer's first token out.",
        lambda series: series.time_to_first_token,
    ),
    (
        "turnout_inter_token_seconds",
        "Gaps between two reads of a stream, each a token or a few.",
        lambda series: series.gaps,
    ),
    (
        "turnout_request_seconds",
        "From the request's last byte in to the answer's last byte out, whatever the outcome.",
        lambda series: series.duration,
    ),
)

_MODEL_HISTOGRAMS: tuple[tuple[str, str, Callable[[Series], Histogram]], ...] = (
    (
        "turnout_router_overhead_seconds",
        "What the router itself added before the answer began.",
        lambda series: series.overhead,
    ),
    (
        "turnout_queue_wait_seconds",
        "Time in the router's own queue.",
        lambda series: series.queue_wait,
    ),
)


def _add(counts: dict[tuple[str, str, str], int], key: tuple[str, str, str], count: int) -> None:
    counts[key] = counts.get(key, 0) + count


def _counter(
    name: str, about: str, labels: tuple[str, ...], counts: Mapping[Any, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, about, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _histogram(
    name: str, about: str, labels: tuple[str, ...], histograms: dict[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, about, labels=labels)
    for values, histogram in histograms.items():
        below = 0
        buckets = []
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            below += count
            buckets.append((number(bound), float(below)))
        family.add_metric(values, buckets, histogram.total)
    return family
