"""A replica: the one mutable thing that a request meets."""

from collections import Counter
from collections.abc import Callable
from math import inf

from policies.limits.saturation import UNBOUNDED, Bounds, RoomModel, saturation
from router.engines.engine import Engine, ReplicaLoad
from router.fleet.expectation import Verdict
from router.fleet.identity import Identity
from router.fleet.own_measurements import OwnMeter


class Replica:
    """One engine process as one version uses it: its dialect, its health, its load.

    `up` says that it is `well`, which the prober finds, and what its version says, which the verifier finds
    and puts into `verdict`; `doubted`: it may be another process since. `draining` is the operator's wish,
    `load` the last scrape and `load_at` its time (monotonic seconds). `in_flight` counts this process's
    leases and what is there from `elsewhere`: other workers and other routers. `waiting` counts own leases
    without a first token yet. `tokens` is what all that is in flight is estimated to hold. From `limit`
    requests or `token_limit` on, the replica is saturated; see `policies.limits.saturation`. `room_made` is
    called when it may not be any more.
    """

    __slots__ = (
        "_tokens_each",
        "_tokens_elsewhere",
        "doubted",
        "draining",
        "elsewhere",
        "engine",
        "headers",
        "id",
        "identity",
        "in_flight",
        "limit",
        "load",
        "load_at",
        "max_in_flight",
        "meter",
        "offers",
        "room",
        "room_made",
        "served",
        "token_limit",
        "tokens",
        "up",
        "verdict",
        "waiting",
        "warm_joins",
        "weight",
        "well",
    )

    def __init__(self, identity: Identity, engine: Engine, room: RoomModel | None = None) -> None:
        """Without `room` it is saturated by its `max_in_flight` alone."""
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
        self.served = 0
        """Requests that were sent there since this router knows it."""
        self.tokens = 0.0
        self.limit = float(self.max_in_flight)
        self.token_limit = inf
        self.room_made: Callable[[], None] | None = None
        """Set while somebody waits for it."""
        self.room = room
        """How full the process is, as it says; None where nobody may wait for it."""
        self._tokens_each = 0.0
        self._tokens_elsewhere = 0.0
        self.up = self.well = True
        self.verdict = Verdict()
        self.doubted = False
        self.draining = False
        self.load: ReplicaLoad | None = None
        self.load_at = 0.0
        self.warm_joins: Counter[str] = Counter()
        """Prompts sent to warm its cache, by what came of each."""

    def __repr__(self) -> str:
        state = "draining" if self.draining else "up" if self.up else "down"
        return f"<Replica {self.id} {self.engine.kind} {state} in_flight={self.in_flight}>"

    def judge_health(self, *, well: bool) -> None:
        self.well = well
        self.up = well and self.verdict.verified

    def judge_identity(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.up = self.well and verdict.verified

    @property
    def ready(self) -> bool:
        """It may get requests: not down, not draining, not full."""
        return self.up and not self.draining and self.in_flight < self.max_in_flight

    @property
    def serves(self) -> bool:
        """It may get requests, now or when it has room again: not down, not draining."""
        return self.up and not self.draining

    @property
    def own_in_flight(self) -> int:
        """Without what others have there."""
        return self.in_flight - self.elsewhere

    @property
    def own_tokens(self) -> float:
        """The same of `tokens`."""
        return self.tokens - self._tokens_elsewhere

    @property
    def saturation(self) -> float:
        """0 is idle, or of no known bound; from 1 on there is no room for one more."""
        return saturation(self.in_flight, self.tokens, Bounds(self.limit, self.token_limit))

    def set_elsewhere(self, count: int) -> None:
        """Others have so many requests there now; each is taken to be as large as our own."""
        own, own_tokens = self.own_in_flight, self.own_tokens
        if own:
            self._tokens_each = own_tokens / own
        self._tokens_elsewhere = count * self._tokens_each
        fewer = count < self.elsewhere
        self.in_flight = own + count
        self.elsewhere = count
        self.tokens = own_tokens + self._tokens_elsewhere
        if fewer:
            self.offer_room()

    def renew(self, made: "Replica", *, room: bool) -> None:
        """The same process, with the bounds and the weight of `made`; also its model of the `room` there is.

        All that is known of the process stays, and all that is in flight.
        """
        self.identity = made.identity
        self.weight = made.weight
        self.max_in_flight = made.max_in_flight
        if room:
            self.room = made.room
        self._bind(UNBOUNDED if self.room is None else self.room.bounds)

    def read(self, load: ReplicaLoad, at: float) -> None:
        """What the engine said of itself, and when (monotonic seconds)."""
        self.load, self.load_at = load, at
        if self.room is not None:
            self._bind(self.room.read(load, self.in_flight, self.tokens, at))
            self.offer_room()

    def look(self, now: float) -> None:
        """A scrape that has become too old bounds nothing any more."""
        if self.room is not None:
            self._bind(self.room.at(now))

    def offer_room(self) -> None:
        """Something has changed for the better, perhaps: whoever waits may look."""
        if self.room_made is not None:
            self.room_made()

    def _bind(self, bounds: Bounds) -> None:
        self.limit = min(self.max_in_flight, bounds.requests)
        self.token_limit = bounds.tokens
