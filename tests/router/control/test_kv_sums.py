"""What an overview shows of KV events: the workers' word, else its own."""

from router.control.hearing import place_of
from router.control.kv_sums import KvSums
from router.control.reports import ReplicaReport
from router.fleet.kv_figures import KvFigures
from router.fleet.own_measurements import OwnMeasurements
from router.fleet.replicas import Replica
from tests.support.bare_replicas import replica

OWN = KvFigures(known_blocks=1)
A = replica("http://a")


class Own:
    """An overview that hears everybody."""

    def figures(self, replica: Replica) -> KvFigures | None:
        return OWN

    def warnings(self, replica: Replica) -> tuple[str, ...]:
        return ("own",)


def reported(events: int | None, *warnings: str) -> ReplicaReport:
    kv = None if events is None else KvFigures(connected=True, events=events)
    return ReplicaReport(place_of(A), True, False, 0, 0, OwnMeasurements(), kv, warnings)


def test_what_workers_hear_is_theirs() -> None:
    """Summed up with those that are gone; each warning is told once."""
    sums = KvSums(Own())
    now = [reported(3, "x"), reported(4, "x", "y")]
    sums.show(place_of(A), now, [*now, reported(10, "z")])
    assert sums.figures(A) == KvFigures(listeners=2, connected=True, events=17)
    assert sums.warnings(A) == ("x", "y")


def test_what_they_cannot_hear_is_heard_here() -> None:
    """Also before any worker has called, and when none is left."""
    sums = KvSums(Own())
    assert (sums.figures(A), sums.warnings(A)) == (OWN, ("own",))
    sums.show(place_of(A), [reported(None)], [reported(None), reported(5)])
    assert (sums.figures(A), sums.warnings(A)) == (OWN, ("own",))
