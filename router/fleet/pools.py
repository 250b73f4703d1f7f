"""The replicas of one version, of which a request gets one: choosing and leasing are one synchronous step."""

from collections.abc import Collection, Iterator, Sequence
from itertools import count
from random import Random
from typing import NamedTuple

from policies.limits.saturation import pool_saturation
from policies.resilience.retry import RetryBudget
from policies.routing.by_beginning import ByBeginning
from policies.routing.events import Dispatched, Forgotten
from policies.routing.policy import Policy, Weighed
from router.api.errors import EndpointNotSupported, NoHealthyReplica
from router.api.request import InferenceRequest
from router.fleet.facts import Facts
from router.fleet.leases import Lease, Tell, Told, ToldLease
from router.fleet.prompts import PromptHasher
from router.fleet.replicas import Replica
from router.fleet.sizes import RequestSizes


class Kept(NamedTuple):
    """What of a pool goes on when its configuration changes."""

    policy: bool
    retries: bool
    hasher: bool


class Pool:
    """The replicas that serve one version, the policy that chooses among them, the purse of their retries.

    It is there as long as its version; what it is made of is replaced, all at once, when the configuration
    changes.

    `alone`: other routers share these replicas and are not heard now, so all that is known is this router's.
    `queued` is how many requests wait until one of them has room; see `router.flow.queue`.
    """

    __slots__ = (
        "_fallback",
        "_publish",
        "_tell",
        "_tickets",
        "alone",
        "hasher",
        "policy",
        "policy_name",
        "queued",
        "replicas",
        "retries",
        "sizes",
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
        self.sizes = RequestSizes()
        self.queued = 0
        self.alone = False
        self._fallback: Policy | None = None
        """Chooses while this router is alone among others; what a policy mirrors is then far from true."""
        self._tickets: Iterator[int] = count(1)
        self._publish: Tell | None = None
        self._tell = self._listener()

    def share(self, publish: Tell, tickets: Iterator[int]) -> None:
        """Tell others too of what is leased here. `tickets` are unlike those of all others."""
        self._tickets = tickets
        self._fallback = ByBeginning(Random())
        self._publish = publish
        self._tell = self._listener()

    def renew(self, made: "Pool", replicas: Sequence[Replica], kept: "Kept") -> None:
        """Serve as `made` would, which has not served yet, with these replicas and what of the own is `kept`.

        What is leased already ends where it began; who waits may have the new replicas.
        """
        self.replicas = tuple(replicas)
        self.policy_name = made.policy_name
        self.policy = self.policy if kept.policy else made.policy
        self.retries = self.retries if kept.retries else made.retries
        self.hasher = self.hasher if kept.hasher else made.hasher
        self._tell = self._listener()

    def _listener(self) -> Tell | None:
        """Of leases; None where nobody wants to know: they then cost nothing more."""
        observe, publish = self.policy.observe, self._publish
        if publish is None or not self.policy.learns:
            return observe if self.policy.learns else publish

        def tell(event: Told) -> None:
            observe(event)
            publish(event)

        return tell

    def facts(self, request: InferenceRequest) -> Facts:
        """What the policy may know of a request; one object for all its attempts."""
        return Facts(request, self.hasher)

    def lease(
        self, request: InferenceRequest, facts: Facts, now: float, tried: Collection[Replica] = ()
    ) -> Lease:
        """Choose a replica that was not tried and lease it, in one step; one with room if there is one.

        Raises `EndpointNotSupported` if no replica of the pool, ready or not, can do what the request
        needs, and `NoHealthyReplica` if those that can are down, draining, full or tried.
        """
        return self._lease_of(self._candidates(request, tried), request, facts, now)

    def lease_with_room(self, request: InferenceRequest, facts: Facts, now: float) -> Lease | None:
        """The same for a first attempt, but None if all that could take the request are saturated.

        Raises `NoHealthyReplica` if those that can are down or draining.
        """
        candidates = self._with_room(request, ())
        if candidates:
            return self._lease_of(candidates, request, facts, now)
        self._check_serves(request)
        return None

    def has_room(self, request: InferenceRequest) -> bool:
        """Whether `lease_with_room` would find one now. Raises what that raises."""
        if self._with_room(request, ()):
            return True
        self._check_serves(request)
        return False

    @property
    def saturation(self) -> float:
        """That of its freest replica; from 1 on requests wait, infinite without any that is up."""
        return pool_saturation(replica.saturation for replica in self.replicas if replica.serves)

    def tokens(self, request: InferenceRequest, facts: Facts) -> int:
        """What the request is estimated to cost, prompt and answer."""
        return self.sizes.total(request, facts.prompt if self.policy.learns else None)

    def lease_on(self, replica: Replica, request: InferenceRequest, facts: Facts, now: float) -> Lease:
        """Lease this one, whatever it can do."""
        tell = self._tell
        prompt = facts.prompt if self.policy.learns else None
        tokens = self.sizes.in_flight(request, prompt)
        if tell is None:
            return Lease(replica, tokens)
        event = Dispatched(replica.id, next(self._tickets), now, prompt, request.stream)
        return ToldLease(replica, tokens, tell, self.hasher, event)

    def forget(self, replica: Replica, now: float) -> None:
        """The replica began anew: what its cache held is gone."""
        if self._tell is not None and replica in self.replicas:
            self._tell(Forgotten(replica.id, now))

    def weigh(
        self, request: InferenceRequest, facts: Facts, now: float, tried: Collection[Replica] = ()
    ) -> Sequence[Weighed]:
        """How the policy sees the candidates. Raises what `lease` raises."""
        return self.policy.weigh(facts, self._candidates(request, tried), now)

    def _lease_of(
        self, candidates: list[Replica], request: InferenceRequest, facts: Facts, now: float
    ) -> Lease:
        policy = self.policy
        chooses = self._fallback if self.alone and policy.learns and self._fallback is not None else policy
        return self.lease_on(chooses.choose(facts, candidates, now), request, facts, now)

    def _candidates(self, request: InferenceRequest, tried: Collection[Replica]) -> list[Replica]:
        """Those with room; where none has, the saturated ones too, up to their `max_in_flight`."""
        candidates = self._with_room(request, tried) or [
            replica
            for replica in self.replicas
            if replica.ready and replica not in tried and _can(replica, request)
        ]
        if not candidates:
            raise self._refusal(request)
        return candidates

    def _with_room(self, request: InferenceRequest, tried: Collection[Replica]) -> list[Replica]:
        needs = request.needs
        fallback = request.fallback
        return [
            replica
            for replica in self.replicas
            # All of it spelled out: it is asked of every replica for every request.
            if replica.up
            and not replica.draining
            and replica.in_flight < replica.limit
            and replica.tokens < replica.token_limit
            and (needs <= replica.offers or (fallback is not None and fallback.needs <= replica.offers))
            and replica not in tried
        ]

    def _check_serves(self, request: InferenceRequest) -> None:
        """Raises what there is to say if waiting would be in vain."""
        if not any(replica.serves and _can(replica, request) for replica in self.replicas):
            raise self._refusal(request)

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


def _can(replica: Replica, request: InferenceRequest) -> bool:
    fallback = request.fallback
    return request.needs <= replica.offers or (fallback is not None and fallback.needs <= replica.offers)


def _size(words: frozenset[str]) -> int:
    return len(words)
