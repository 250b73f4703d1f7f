"""Which limits a request falls under, and the buckets in which they count it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from policies.limits.ask import Budget, Slots
from policies.limits.cost import Reserve
from policies.limits.gcra import Rate
from policies.limits.usage import Price

Kind = Literal["requests", "tokens"]

_OF_A_TENANT = frozenset({"tenant", "api_key", "user"})
"""A key belongs to one tenant, and a user's name means something within one only."""
_MAX_PLANS = 10_000
_MAX_WORD = 64
_SAFE = "/.@+-_~"


class Subject(NamedTuple):
    """Whose request it is and what it asks for; empty where it does not say."""

    tenant: str = ""
    api_key: str = ""
    user: str = ""
    model: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One `[[limits]]` table. `per` are the fields of `Subject` that each have buckets of their own.

    Cached prompt tokens count `cached_weight` each. `stops`: a stream that outgrows an empty budget ends.
    """

    name: str
    per: tuple[str, ...] = ()
    match: Mapping[Any, str]
    requests: Rate | None = None
    tokens: Rate | None = None
    concurrency: int | None = None
    output_reserve: Reserve = "expected"
    cached_weight: float = 1.0
    stops: bool = False

    def applies_to(self, subject: Subject) -> bool:
        return all(getattr(subject, name) == value for name, value in self.match.items())

    @property
    def of_a_tenant(self) -> bool:
        return not _OF_A_TENANT.isdisjoint(self.per)

    def key(self, subject: Subject, suffix: str) -> str:
        """The bucket's name. The braces are Redis Cluster's: all of one tenant's buckets are on one node."""
        tag = f"t:{subject.tenant}" if self.of_a_tenant else "pool"
        words = ":".join(_word(getattr(subject, name)) for name in self.per)
        return f"turnout:{{{tag}}}:{_word(self.name)}:{words}:{suffix}"


class Bucket(NamedTuple):
    """One budget of a plan. `budget` costs what one unit does; of tokens a request takes several."""

    limit: Limit
    kind: Kind
    rate: Rate
    price: Price
    budget: Budget


@dataclass(frozen=True, slots=True)
class Plan:
    """All buckets that count the requests of one subject, a tenant's own before those of everybody."""

    subject: Subject
    buckets: Sequence[Bucket]
    budgets: Sequence[Budget]
    """Of the buckets, for one unit of each."""
    counting: Sequence[tuple[int, Bucket]]
    """Those of tokens, and where they stand among the buckets."""
    slots: Sequence[Slots]
    concurrent: Sequence[Limit]
    """Whose `slots` these are."""
    admitted: Sequence[tuple[str, str]]
    """What is recorded of a request that all of them let in."""
    reserves: Sequence[Reserve]
    """The ways in which its limits reserve output."""
    stops: Sequence[Bucket]
    """What ends a stream that outgrows it."""

    def limit_of(self, index: int) -> tuple[Limit, str]:
        """Who speaks where a verdict says `refused == index`."""
        if index < len(self.buckets):
            bucket = self.buckets[index]
            return bucket.limit, bucket.kind
        return self.concurrent[index - len(self.buckets)], "concurrency"


class Rules:
    """All limits of a configuration. Plans are kept for subjects that were seen lately."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        # Stable, so in the order of the file among equals.
        self.limits = tuple(sorted(limits, key=lambda limit: not limit.of_a_tenant))
        self._plans: dict[Subject, Plan] = {}
        self.reads_user = any("user" in (*limit.per, *limit.match) for limit in self.limits)

    def plan(self, subject: Subject) -> Plan:
        plan = self._plans.get(subject)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                # The oldest; that one may be in use still costs it a new plan.
                del self._plans[next(iter(self._plans))]
            plan = self._plans[subject] = self._make(subject)
        return plan

    @property
    def subjects(self) -> Sequence[Subject]:
        """Those seen lately, the newest last."""
        return list(self._plans)

    def _make(self, subject: Subject) -> Plan:
        mine = [limit for limit in self.limits if limit.applies_to(subject)]
        buckets: list[Bucket] = []
        for limit in mine:
            if limit.requests is not None:
                buckets.append(_bucket(limit, "requests", limit.requests, subject))
            if limit.tokens is not None:
                buckets.append(_bucket(limit, "tokens", limit.tokens, subject))
        concurrent = [limit for limit in mine if limit.concurrency is not None]
        slots = [Slots(limit.key(subject, "c"), limit.concurrency or 0) for limit in concurrent]
        admitted = tuple((limit.name, "admitted") for limit in mine)
        counting = [(index, bucket) for index, bucket in enumerate(buckets) if bucket.kind == "tokens"]
        return Plan(
            subject,
            tuple(buckets),
            tuple(bucket.budget for bucket in buckets),
            tuple(counting),
            tuple(slots),
            tuple(concurrent),
            admitted,
            reserves=tuple({bucket.limit.output_reserve: None for _, bucket in counting}),
            stops=tuple(bucket for _, bucket in counting if bucket.limit.stops),
        )


def _bucket(limit: Limit, kind: Kind, rate: Rate, subject: Subject) -> Bucket:
    cost_us = rate.cost_us(1)
    # Requests come one by one, and each is rounded up: without their rounding a full bucket held one less.
    window_us = rate.window_us if kind == "tokens" else max(rate.window_us, rate.capacity * cost_us)
    budget = Budget(limit.key(subject, kind[0]), cost_us, window_us)
    return Bucket(limit, kind, rate, Price(limit.cached_weight), budget)


def _word(value: str) -> str:
    """What becomes part of a key, also where a client sends it: no brace, no colon, no end of it."""
    word = quote(value, safe=_SAFE, errors="replace")
    if len(word) <= _MAX_WORD:
        return word
    return "#" + blake2b(value.encode(errors="replace"), digest_size=16).hexdigest()
