"""Replicas, the pools they form, and the leases requests hold on them.

A `Replica` is the one mutable thing that a request meets. Choosing and leasing are one synchronous
step, and what a lease took it gives back exactly once.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from policies.outcome import Outcome
from policies.resilience.retry import RetryBudget
from policies.routing.policy import Policy
from router.api.errors import EndpointNotSupported, ModelNotFound, NoHealthyReplica
from router.api.request import InferenceRequest
from router.engines.engine import Engine, ReplicaLoad
from router.fleet.own_measurements import OwnMeter


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a replica is called, where it is and what it may take; it does not change while it lives."""

    id: str
    url: str
    model: str
    version: str
    weight: float = 1.0
    max_in_flight: int | None = None
    api_key: str | None = field(default=None, repr=False)
    """Sent to the replica in place of the client's."""


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
        "meter",
        "offers",
        "up",
        "waiting",
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
        self.in_flight = 0
        self.elsewhere = 0
        self.waiting = 0
        self.up = True
        self.draining = False
        self.load: ReplicaLoad | None = None
        self.load_at = 0.0

    def __repr__(self) -> str:
        state = "draining" if self.draining else "up" if self.up else "down"
        return f"<Replica {self.id} {self.engine.kind} {state} in_flight={self.in_flight}>"

    @property
    def ready(self) -> bool:
        """It may get requests: not down, not draining, not full."""
        limit = self.identity.max_in_flight
        return self.up and not self.draining and (limit is None or self.in_flight < limit)

    @property
    def own_in_flight(self) -> int:
        """Without what others have there."""
        return self.in_flight - self.elsewhere

    def set_elsewhere(self, count: int) -> None:
        """Others have so many requests there now."""
        self.in_flight += count - self.elsewhere
        self.elsewhere = count

    def lease(self) -> "Lease":
        return Lease(self)


class Lease:
    """One request's slot on one replica, from the choice to the outcome."""

    __slots__ = ("_open", "_waiting", "replica")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self._open = True
        self._waiting = True
        replica.in_flight += 1
        replica.waiting += 1

    def first_token(self) -> None:
        """The answer has begun: the replica's prefill of this request is over."""
        if self._waiting:
            self._waiting = False
            self.replica.waiting -= 1

    def close(self, outcome: Outcome | None) -> None:
        """Give the slot back. None: the attempt was never sent. A second call changes nothing."""
        if not self._open:
            return
        self._open = False
        if self._waiting:
            self._waiting = False
            self.replica.waiting -= 1
        self.replica.in_flight -= 1
        if outcome is not None:
            self.replica.meter.count(outcome)


class Journal(Protocol):
    """Whoever wants to know what becomes of a pool's leases."""

    def lease(self, replica: Replica, request: InferenceRequest, now: float) -> Lease:
        """Lease it for this request, and follow the lease to its end."""
        ...


class Pool:
    """The replicas that serve one version, the policy that chooses among them, the purse of their retries.

    `journal` is None where nobody wants to know. `alone`: other routers share these replicas and are not
    heard now, so counts are this router's only.
    """

    __slots__ = ("alone", "journal", "policy", "replicas", "retries")

    def __init__(self, replicas: Sequence[Replica], policy: Policy, retries: RetryBudget) -> None:
        self.replicas = tuple(replicas)
        self.policy = policy
        self.retries = retries
        self.journal: Journal | None = None
        self.alone = False

    def lease(self, request: InferenceRequest, now: float, tried: Collection[Replica] = ()) -> Lease:
        """Choose a replica that was not tried and lease it, in one step.

        Raises `EndpointNotSupported` if no replica of the pool, ready or not, can do what the request
        needs, and `NoHealthyReplica` if those that can are down, draining, full or tried.
        """
        needs = request.needs
        fallback = request.fallback
        candidates = [
            replica
            for replica in self.replicas
            if replica.ready
            and (needs <= replica.offers or (fallback is not None and fallback.needs <= replica.offers))
            and replica not in tried
        ]
        if not candidates:
            raise self._refusal(request)
        replica = self.policy.choose(request, candidates, now)
        journal = self.journal
        return replica.lease() if journal is None else journal.lease(replica, request, now)

    def _refusal(self, request: InferenceRequest) -> EndpointNotSupported | NoHealthyReplica:
        wishes = [request.needs] if request.fallback is None else [request.needs, request.fallback.needs]
        lacking = [min((wish - r.offers for wish in wishes), key=_size) for r in self.replicas]
        if lacking and all(lacking):
            least: frozenset[str] = min(lacking, key=_size)
            missing = ", ".join(sorted(least))
            engines = ", ".join(sorted({r.engine.kind for r in self.replicas}))
            return EndpointNotSupported(
                f"no replica of {request.model} supports this request: it needs {missing}, "
                f"which none of its engines ({engines}) offers"
            )
        return NoHealthyReplica(f"no replica of {request.model} is ready to answer", retry_after_s=1.0)


def _size(words: frozenset[str]) -> int:
    return len(words)


class Route:
    """Where one public model name leads: a model, a version, a pool."""

    __slots__ = ("model", "pool", "version")

    def __init__(self, model: str, version: str, pool: Pool) -> None:
        self.model = model
        self.version = version
        self.pool = pool


class Fleet:
    """Every route by public name, and every replica once; what a request reads once and holds to its end."""

    __slots__ = ("names", "replicas", "routes")

    def __init__(
        self, routes: Mapping[str, Route], names: Mapping[str, str], replicas: Sequence[Replica]
    ) -> None:
        self.routes = routes
        self.names = names
        """What `/v1/models` lists: each public name, and the model name it leads to."""
        self.replicas = tuple(replicas)

    @property
    def ready(self) -> bool:
        return any(replica.ready for replica in self.replicas)

    @property
    def only_model(self) -> str | None:
        """The model's name, where there is but one: what a request that names none means."""
        models = {route.model for route in self.routes.values()}
        return models.pop() if len(models) == 1 else None

    def unknown(self, name: str) -> ModelNotFound:
        """What to say of a name that no route has."""
        model, _, version = name.partition("@")
        if version and model in self.routes:
            versions = ", ".join(sorted(known for known in self.routes if known.startswith(f"{model}@")))
            return ModelNotFound(
                f"model {model!r} has no version {version!r}; there are: {versions}", param="model"
            )
        near = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "GET /v1/models lists what there is"
        return ModelNotFound(f"the model {name[:128]!r} does not exist; {hint}", param="model")
