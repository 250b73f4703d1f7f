"""What goes wrong, and what changes, in the middle of a run. `at` is seconds of virtual time."""

from typing import NamedTuple

from loadtest.simulate.fleet import Fleet
from loadtest.simulate.setup import ReplicaSetup


class Restart(NamedTuple):
    """A replica dies with its requests and its cache; all see that, and that it is back after `down_s`."""

    at: float
    replica: str
    down_s: float = 60.0

    def strike(self, fleet: Fleet) -> None:
        fleet.replica_down(self.replica)
        fleet.timeline.after(self.down_s, fleet.replica_up, self.replica)


class Flush(NamedTuple):
    """A replica forgets what it has cached, and tells nobody."""

    at: float
    replica: str

    def strike(self, fleet: Fleet) -> None:
        fleet.replicas[self.replica].lose_cache()


class SlowDown(NamedTuple):
    """Every step of a replica takes `factor` times its time for `for_s`, and nobody is told."""

    at: float
    replica: str
    factor: float = 4.0
    for_s: float = 180.0

    def strike(self, fleet: Fleet) -> None:
        replica = fleet.replicas[self.replica]
        before = replica.slowdown
        replica.slow_down(before * self.factor)
        fleet.timeline.after(self.for_s, replica.slow_down, before)


class ScaleUp(NamedTuple):
    """More replicas, cold."""

    at: float
    replicas: tuple[ReplicaSetup, ...]

    def strike(self, fleet: Fleet) -> None:
        for replica in self.replicas:
            fleet.join(replica)


class WorkerCrash(NamedTuple):
    """A worker dies with the requests it was relaying; after `down_s` a new one takes its place."""

    at: float
    worker: int
    down_s: float = 2.0

    def strike(self, fleet: Fleet) -> None:
        fleet.worker_down(self.worker)
        fleet.timeline.after(self.down_s, fleet.worker_up, self.worker)
