"""A replica: the one mutable thing that a request meets."""

from collections import Counter
from math import inf

from router.engines.engine import Engine, ReplicaLoad
from router.fleet.identity import Identity
from router.fleet.own_measurements import OwnMeter


class Replica:
    """One engine process as one version uses it: its dialect, its health, its load.

    `up` is the prober's verdict, `draining` the operator's wish, `load` the last scrape and `load_at`
    its time (monotonic seconds). `in_flight` counts this process's leases and what is there from
    `elsewhere`: other workers and other routers. `waiting` counts own leases without a first token yet.
    """

    __slots__ = (
        "draining",
        "elsewhere",
        "engine",
        "headers",
        "id",
        "identity",
        "in_flight",
        "load",
        "load_at",
        "max_in_flight",
        "meter",
        "offers",
        "up",
        "waiting",
        "warm_joins",
        "weight",
    )

    def __init__(self, identity: Identity, engine: Engine) -> None:
        self.identity = identity
        self.id = identity.id
        self.weight = identity.weight
        self.headers = (
            (b"x-turnout-model", identity.model.encode()),
            (b"x-turnout-version", identity.version.encode()),
            (b"x-turnout-replica", identity.id.encode()),
        )
        """What an answer says of where it was made; rendered once, sent with every answer."""
        self.engine = engine
        self.offers = engine.offers
        self.meter = OwnMeter()
        self.max_in_flight = inf if identity.max_in_flight is None else identity.max_in_flight
        self.in_flight = 0
        self.elsewhere = 0
        self.waiting = 0
        self.up = True
        self.draining = False
        self.load: ReplicaLoad | None = None
        self.load_at = 0.0
        self.warm_joins: Counter[str] = Counter()
        """Prompts sent to warm its cache, by what came of each."""

    def __repr__(self) -> str:
        state = "draining" if self.draining else "up" if self.up else "down"
        return f"<Replica {self.id} {self.engine.kind} {state} in_flight={self.in_flight}>"

    @property
    def ready(self) -> bool:
        """It may get requests: not down, not draining, not full."""
        return self.up and not self.draining and self.in_flight < self.max_in_flight

    @property
    def own_in_flight(self) -> int:
        """Without what others have there."""
        return self.in_flight - self.elsewhere

    def set_elsewhere(self, count: int) -> None:
        """Others have so many requests there now."""
        self.in_flight += count - self.elsewhere
        self.elsewhere = count
