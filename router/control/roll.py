"""Every worker that was ever there: the newest report of those that are, the last of those that are gone."""

from collections.abc import Callable, Sequence

from router.control.messages import Member
from router.control.report_sums import both
from router.control.reports import WorkerReport

MAX_GONE = 16
"""Last reports of workers that are gone, kept apart: one that only lost its line comes back soon."""


class Roll:
    """Counters are summed over all of it; what a worker had in flight is over when it goes.

    `present` gives the newest report of each that is there.
    """

    def __init__(self, present: Callable[[], Sequence[WorkerReport]]) -> None:
        self._present = present
        self._gone: dict[Member, WorkerReport] = {}

    @property
    def all(self) -> list[WorkerReport]:
        """Of those that are there, and of those that are gone."""
        return [*self._present(), *self._gone.values()]

    def keep(self, report: WorkerReport) -> None:
        """This one hung up."""
        self.forget_returned()
        self._gone[report.member] = report
        if len(self._gone) > MAX_GONE:
            first, second, *_ = self._gone.values()
            del self._gone[first.member]
            self._gone[second.member] = both(first, second)

    def forget_returned(self) -> None:
        """Who lost its line, and not its life, has called again."""
        for report in self._present():
            self._gone.pop(report.member, None)
