"""What others tell, handed to the pools and replicas of this process that it concerns."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count

from policies.routing.events import Event
from router.control.ledger import ticket_of
from router.control.messages import Place
from router.control.sharing import Sharing
from router.control.state import Snapshot, Version
from router.fleet.pools import Pool
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet


class Hearing:
    """Keeps `Replica.elsewhere` and `Pool.alone`, and lets policies observe, in the fleet in force.

    What others have and this configuration does not know is left aside. Without `counts`, somebody else keeps
    `Replica.elsewhere`.
    """

    def __init__(self, fleet: Callable[[], Fleet], sharing: Sharing, *, counts: bool = True) -> None:
        self._fleet = fleet
        self._sharing = sharing
        self._known: Fleet | None = None
        self._alone = False
        self._pools: Mapping[Version, Pool] = {}
        self._replicas: dict[Place, Replica] = {}
        sharing.on_event(self._event)
        self._counts = counts
        if counts:
            sharing.on_count(self._count)
        sharing.on_health(self._health)
        self.follow()

    def follow(self) -> None:
        """Know the fleet in force; call it again when another one is."""
        self._look_up()
        self._sharing.offer(
            {place: pool.policy for place, pool in self._pools.items() if isinstance(pool.policy, Snapshot)}
        )
        for pool in self._pools.values():
            pool.alone = self._alone

    def _event(self, model: str, version: str, event: Event) -> None:
        self._look_up()
        pool = self._pools.get((model, version))
        if pool is not None and pool.policy.learns:
            pool.policy.observe(event)

    def _count(self, place: Place, count: int) -> None:
        self._look_up()
        replica = self._replicas.get(place)
        if replica is not None:
            replica.set_elsewhere(count)

    def _health(self, healthy: bool) -> None:
        self._look_up()
        self._alone = not healthy
        for pool in self._pools.values():
            pool.alone = self._alone

    def _look_up(self) -> None:
        """Know the fleet in force; a new one is brought up to date."""
        fleet = self._fleet()
        if fleet is self._known:
            return
        self._known = fleet
        self._pools = fleet.pools
        self._replicas = {place_of(replica): replica for replica in fleet.replicas}
        for place, replica in self._replicas.items() if self._counts else ():
            replica.set_elsewhere(self._sharing.count_elsewhere(place))


def tickets_of(sharing: Sharing) -> Iterator[int]:
    """The tickets of this process; made once, as no two leases may have the same."""
    return (ticket_of(sharing.member, serial) for serial in count(1))


def share(fleet: Fleet, sharing: Sharing, tickets: Iterator[int]) -> None:
    """Tell the others of every lease in this fleet. Call it again when another one is in force."""
    for (model, version), pool in fleet.pools.items():
        pool.share(partial(sharing.publish, model=model, version=version), tickets)


def place_of(replica: Replica) -> Place:
    return Place(replica.identity.model, replica.identity.version, replica.id)
