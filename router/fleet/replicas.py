"""Replicas, the pools they form, and the leases requests hold on them.

A `Replica` is the one mutable thing that a request meets. Choosing and leasing are one synchronous
step, and what a lease took it gives back exactly once.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import count
from math import inf
from random import Random

from policies.outcome import Outcome
from policies.resilience.retry import RetryBudget
from policies.routing.by_beginning import ByBeginning
from policies.routing.events import Dispatched, Done, FirstToken, Forgotten, Prompt
from policies.routing.policy import Policy, Weighed
from router.api.errors import EndpointNotSupported, ModelNotFound, NoHealthyReplica
from router.api.request import InferenceRequest
from router.engines.engine import Engine, ReplicaLoad
from router.fleet.facts import Facts
from router.fleet.identity import Identity
from router.fleet.own_measurements import OwnMeter
from router.fleet.prompts import PromptHasher


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

    def first_token(self, now: float) -> None:  # noqa: ARG002
        """The answer has begun: the replica's prefill of this request is over."""
        if self._waiting:
            self._waiting = False
            self.replica.waiting -= 1

    @property
    def wants_answer(self) -> bool:
        """Somebody learns from what the replica caches now: prompt and answer together."""
        return False

    def close(
        self,
        outcome: Outcome | None,
        now: float,  # noqa: ARG002
        answer: Prompt | None = None,  # noqa: ARG002
    ) -> None:
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


Told = Dispatched | FirstToken | Done | Forgotten
Tell = Callable[[Told], None]


class ToldLease(Lease):
    """A lease of which somebody is told everything: a policy that learns, or who shares the replicas."""

    __slots__ = ("_event", "_hasher", "_tell")

    def __init__(self, replica: Replica, tell: Tell, hasher: PromptHasher, event: Dispatched) -> None:
        super().__init__(replica)
        self._tell = tell
        self._hasher = hasher
        self._event = event
        tell(event)

    def first_token(self, now: float) -> None:
        if self._waiting:
            super().first_token(now)
            self._tell(FirstToken(self.replica.id, self._event.ticket, now))

    @property
    def wants_answer(self) -> bool:
        return self._event.prompt is not None and self.replica.engine.caches_answers

    def close(self, outcome: Outcome | None, now: float, answer: Prompt | None = None) -> None:
        if self._open:
            super().close(outcome, now)
            prompt = self._event.prompt
            if prompt is not None and outcome is not None and outcome.prompt_tokens:
                self._hasher.learn(prompt, outcome.prompt_tokens)
            self._tell(Done(self.replica.id, self._event.ticket, now, outcome, answer))


class Pool:
    """The replicas that serve one version, the policy that chooses among them, the purse of their retries.

    `alone`: other routers share these replicas and are not heard now, so all that is known is this router's.
    """

    __slots__ = (
        "_fallback",
        "_tell",
        "_tickets",
        "alone",
        "hasher",
        "policy",
        "policy_name",
        "replicas",
        "retries",
    )

    def __init__(
        self,
        replicas: Sequence[Replica],
        policy: Policy,
        retries: RetryBudget,
        hasher: PromptHasher,
        policy_name: str = "",
    ) -> None:
        self.replicas = tuple(replicas)
        self.policy = policy
        self.policy_name = policy_name
        """As the configuration calls it."""
        self.retries = retries
        self.hasher = hasher
        self.alone = False
        self._fallback: Policy | None = None
        """Chooses while this router is alone among others; what a policy mirrors is then far from true."""
        self._tickets: Iterator[int] = count(1)
        # None where nobody wants to know: leases then cost nothing more.
        self._tell: Tell | None = policy.observe if policy.learns else None

    def share(self, publish: Tell, tickets: Iterator[int]) -> None:
        """Tell others too of what is leased here. `tickets` are unlike those of all others."""
        self._tickets = tickets
        self._fallback = ByBeginning(Random())

        def tell(event: Told) -> None:
            self.policy.observe(event)
            publish(event)

        self._tell = tell if self.policy.learns else publish

    def facts(self, request: InferenceRequest) -> Facts:
        """What the policy may know of a request; one object for all its attempts."""
        return Facts(request, self.hasher)

    def lease(
        self, request: InferenceRequest, facts: Facts, now: float, tried: Collection[Replica] = ()
    ) -> Lease:
        """Choose a replica that was not tried and lease it, in one step.

        Raises `EndpointNotSupported` if no replica of the pool, ready or not, can do what the request
        needs, and `NoHealthyReplica` if those that can are down, draining, full or tried.
        """
        policy = self.policy
        chooses = self._fallback if self.alone and policy.learns and self._fallback is not None else policy
        return self.lease_on(
            chooses.choose(facts, self._candidates(request, tried), now), request, facts, now
        )

    def lease_on(self, replica: Replica, request: InferenceRequest, facts: Facts, now: float) -> Lease:
        """Lease this one, whatever it can do."""
        tell = self._tell
        if tell is None:
            return Lease(replica)
        prompt = facts.prompt if self.policy.learns else None
        event = Dispatched(replica.id, next(self._tickets), now, prompt, request.stream)
        return ToldLease(replica, tell, self.hasher, event)

    def forget(self, replica: Replica, now: float) -> None:
        """The replica began anew: what its cache held is gone."""
        if self._tell is not None and replica in self.replicas:
            self._tell(Forgotten(replica.id, now))

    def weigh(
        self, request: InferenceRequest, facts: Facts, now: float, tried: Collection[Replica] = ()
    ) -> Sequence[Weighed]:
        """How the policy sees the candidates. Raises what `lease` raises."""
        return self.policy.weigh(facts, self._candidates(request, tried), now)

    def _candidates(self, request: InferenceRequest, tried: Collection[Replica]) -> list[Replica]:
        needs = request.needs
        fallback = request.fallback
        candidates = [
            replica
            for replica in self.replicas
            # `ready`, spelled out: it is asked of every replica for every request.
            if replica.up
            and not replica.draining
            and replica.in_flight < replica.max_in_flight
            and (needs <= replica.offers or (fallback is not None and fallback.needs <= replica.offers))
            and replica not in tried
        ]
        if not candidates:
            raise self._refusal(request)
        return candidates

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
    def pools(self) -> Mapping[tuple[str, str], Pool]:
        """By model and version, each once."""
        return {(route.model, route.version): route.pool for route in self.routes.values()}

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
