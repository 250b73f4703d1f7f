"""The KV events of replicas as all processes of a router hear them, for its overview."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from router.control.hearing import place_of
from router.control.messages import Place
from router.control.reports import ReplicaReport
from router.fleet.kv_figures import KvFigures, merged
from router.fleet.replicas import Replica


class Own(Protocol):
    """What this process hears itself; `router.fleet.kv_events.KvEvents` is one."""

    def figures(self, replica: Replica) -> KvFigures | None: ...
    def warnings(self, replica: Replica) -> tuple[str, ...]: ...


class KvSums:
    """What workers report, and of replicas that none of them hears, what this process hears."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._figures: dict[Place, KvFigures | None] = {}
        self._warnings: dict[Place, tuple[str, ...]] = {}

    def show(self, place: Place, now: Sequence[ReplicaReport], ever: Sequence[ReplicaReport]) -> None:
        """The reports of workers that are there, and beside them of those that are gone."""
        self._figures[place] = heard_in(now, ever)
        # Each once, in the order in which they came up.
        self._warnings[place] = tuple(dict.fromkeys(each for report in now for each in report.kv_warnings))

    def figures(self, replica: Replica) -> KvFigures | None:
        return self._figures.get(place_of(replica)) or self._own.figures(replica)

    def warnings(self, replica: Replica) -> tuple[str, ...]:
        place = place_of(replica)
        heard = self._figures.get(place) is not None
        return self._warnings[place] if heard else self._own.warnings(replica)


def heard_in(now: Iterable[ReplicaReport], ever: Iterable[ReplicaReport]) -> KvFigures | None:
    """As it is `now`, with the counts of `ever`. None if no worker hears the replica now."""
    return merged(
        [report.kv for report in now if report.kv is not None],
        [report.kv for report in ever if report.kv is not None],
    )
