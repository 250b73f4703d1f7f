"""What becomes known of replicas while a router runs, handed to the parts of it that it concerns."""

from time import monotonic
from typing import TYPE_CHECKING

from policies.routing.events import Event, Forgotten
from router.control.hearing import place_of
from router.control.messages import Place
from router.fleet.prober import HealthChange
from router.fleet.replicas import Replica

if TYPE_CHECKING:
    from router.compose import Router


class Tidings:
    """Of one router; its parts are looked up when something is told."""

    def __init__(self, router: "Router") -> None:
        self._router = router

    def look_again(self, replica: Replica) -> None:
        """A replica failed a request, or shows that it has changed: probe it now, not at its next turn."""
        self._router.prober.hasten(replica)

    def learn(self, replica: Replica, event: Event) -> None:
        """A replica said something of its cache."""
        router = self._router
        route = router.fleet.routes.get(f"{replica.identity.model}@{replica.identity.version}")
        if route is not None and route.pool.policy.learns:
            route.pool.policy.observe(event)

    def heard(self, model: str, version: str, event: Event) -> None:
        """Others found that a replica began anew: its publisher did, too."""
        router = self._router
        if isinstance(event, Forgotten):
            place = Place(model, version, event.replica)
            for replica in router.fleet.replicas:
                if place_of(replica) == place:
                    router.kv_events.hasten(replica)
                    # Without a seat this process reads the metrics itself.
                    if router.warm_joins is not None and router.seat is not None:
                        router.warm_joins.forgotten(replica)

    def forget(self, replica: Replica) -> None:
        """An engine began anew: its cache is empty, whatever was sent there."""
        router = self._router
        router.verifier.doubt(replica)
        router.kv_events.hasten(replica)
        for pool in router.fleet.pools.values():
            pool.forget(replica, monotonic())
        if router.warm_joins is not None:
            router.warm_joins.forgotten(replica)

    def health_changed(self, change: HealthChange) -> None:
        router = self._router
        if router.warm_joins is not None:
            router.warm_joins.changed(change.replica, gone=change.gone)
        if change.up:
            router.verifier.hasten(change.replica)
            router.scraper.hasten(change.replica)
            router.kv_events.hasten(change.replica)
        elif change.gone:
            router.verifier.doubt(change.replica, gone=True)
        change.replica.offer_room()

    def verdict_changed(self, replica: Replica) -> None:
        router = self._router
        gone = replica.verdict.state == "gone"
        if gone:
            router.prober.hasten(replica)
        if router.warm_joins is not None and (gone or replica.up):
            router.warm_joins.changed(replica, gone=gone)
        replica.offer_room()
