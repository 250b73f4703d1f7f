"""What came of copies for shadow versions: counted by pair of versions, and shown to Prometheus.

Models and versions are names from the configuration, results and differences words of closed sets.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import field
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from policies.release.pairs import Summary
from router.observe.events import Copied
from router.observe.series import Words


class ShadowKey(NamedTuple):
    """`against` is the version that served clients, `version` the one that got copies."""

    model: str
    against: str
    version: str


class ShadowTally(msgspec.Struct):
    """What is counted for one key. It may go from process to process as it is."""

    results: Words = field(default_factory=Words)
    codes: Words = field(default_factory=Words)
    """Why copies failed or could not be taken."""
    pairs: Summary = field(default_factory=Summary)

    def count(self, event: Copied) -> None:
        self.results.count(event.result)
        if event.code:
            self.codes.count(event.code)
        if event.pair is not None:
            self.pairs.add(event.pair)

    def merge(self, other: "ShadowTally") -> None:
        """Add what another process counted."""
        for mine, theirs in ((self.results, other.results), (self.codes, other.codes)):
            for word, times in theirs.counts.items():
                mine.add(word, times)
        self.pairs.merge(other.pairs)


Tallies = Mapping[ShadowKey, ShadowTally]
ShadowReport = Sequence[tuple[ShadowKey, ShadowTally]]


class ShadowCounts:
    """An observer of copies."""

    def __init__(self) -> None:
        self.tallies: dict[ShadowKey, ShadowTally] = {}

    def __call__(self, event: Copied) -> None:
        key = ShadowKey(event.model, event.against, event.version)
        self.tallies.setdefault(key, ShadowTally()).count(event)


def summed(reports: Iterable[ShadowReport]) -> dict[ShadowKey, ShadowTally]:
    """What several processes counted, as one."""
    sums: dict[ShadowKey, ShadowTally] = {}
    for report in reports:
        for key, tally in report:
            sums.setdefault(key, ShadowTally()).merge(tally)
    return sums


class ShadowMetrics(Collector):
    """Reads the tallies when it is collected."""

    def __init__(self, tallies: Callable[[], Tallies]) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        results: Counter[tuple[str, str, str]] = Counter()
        differences: Counter[tuple[str, str, str]] = Counter()
        for key, tally in self._tallies().items():
            for result, count in tally.results.counts.items():
                results[key.model, key.version, result] += count
            for kind, count in tally.pairs.differing.items():
                differences[key.model, key.version, kind] += count
        for name, about, label, counts in (
            (
                "turnout_shadow_requests",
                "Copies for a shadow version: sent, and then compared, failed or stopped; or why not sent.",
                "result",
                results,
            ),
            (
                "turnout_shadow_differences",
                "Compared copies whose answer differs from the client's, by what differs.",
                "kind",
                differences,
            ),
        ):
            family = CounterMetricFamily(name, about, labels=("model", "version", label))
            for labels, count in counts.items():
                family.add_metric(labels, count)
            yield family
