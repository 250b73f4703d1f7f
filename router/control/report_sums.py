"""What several workers report, as if one did."""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import structs

from router.control.kv_sums import heard_in
from router.control.reports import WorkerReport, places
from router.fleet.own_measurements import total
from router.observe.series import Series
from router.observe.shadow import summed


def both(one: WorkerReport, other: WorkerReport) -> WorkerReport:
    """The counters of two that are gone, as those of the second."""
    measured = [
        structs.replace(
            each[0],
            measured=total(report.measured for report in each),
            warm_joins=dict(added(report.warm_joins for report in each)),
            kv=heard_in(each, each),
        )
        for _, each in places([one, other])
    ]
    return structs.replace(
        other,
        series=list(sum_of([one, other]).items()),
        replicas=measured,
        dropped_log_lines=one.dropped_log_lines + other.dropped_log_lines,
        shadows=list(summed([one.shadows, other.shadows]).items()),
    )


def added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """Counts by word."""
    total_of: Counter[str] = Counter()
    for each in counts:
        total_of.update(each)
    return total_of


def sum_of(reports: Iterable[WorkerReport]) -> dict[tuple[str, str, str], Series]:
    """Series by model, version and engine."""
    sums: dict[tuple[str, str, str], Series] = {}
    for report in reports:
        for key, series in report.series:
            sums.setdefault(key, Series()).merge(series)
    return sums


def queued_in(reports: Iterable[WorkerReport]) -> Counter[tuple[str, str]]:
    """How many wait, by model and version: each worker has a queue of its own."""
    queued = Counter[tuple[str, str]]()
    for report in reports:
        for model, version, count in report.queued:
            queued[model, version] += count
    return queued
