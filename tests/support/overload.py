"""More than a fleet can do: tenants that send whatever is answered, and what each of them got."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from time import monotonic

from loadtest.engine.server import RunningEngine
from policies.limits.fair_queue import QueueBounds
from router.fleet.pools import Pool
from router.fleet.replicas import Replica
from router.flow.queue import QueueLimits, Queues
from router.observe.events import Finished
from tests.support.keys import TrustingKeys
from tests.support.raw_client import post, raw_client
from tests.support.routers import RunningRouter, config_text, running_router
from tests.support.simulated import replica_entry, simulated_engines

ANSWER_TOKENS = 32


def body(prompt_bytes: int, answer_tokens: int = ANSWER_TOKENS, *, stream: bool = False) -> bytes:
    """Its engines make every answer as long as it may be."""
    text = b"word " * (prompt_bytes // 5)
    ending = b',"stream":true,"stream_options":{"include_usage":true}}' if stream else b"}"
    return b'{"model":"m","messages":[{"role":"user","content":"%b"}],"max_tokens":%d,"ignore_eos":true%b' % (
        text,
        answer_tokens,
        ending,
    )


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float
    tenant: str
    body: bytes


def arrivals(
    rates_per_s: Mapping[str, float], seconds: float, random: Random, content: bytes
) -> list[Arrival]:
    """Poisson, of each tenant at its rate."""
    coming = []
    for tenant, rate in rates_per_s.items():
        at_s = random.expovariate(rate)
        while at_s < seconds:
            coming.append(Arrival(at_s, tenant, content))
            at_s += random.expovariate(rate)
    return sorted(coming, key=lambda each: each.at_s)


@dataclass(slots=True)
class Overload:
    """A router over simulated engines; tenants are told apart by the beginning of their requests' ids."""

    running: RunningRouter
    engines: Sequence[RunningEngine]
    events: list[Finished] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    """How much later than it should this very process sent each request."""
    contested: list[Finished] = field(default_factory=list)
    """Served while more was asked for than could be."""

    async def play(self, coming: Sequence[Arrival]) -> None:
        """Send each when it is due, and wait for all answers."""
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            for number, each in enumerate(coming):
                await asyncio.sleep(max(0.0, began + each.at_s - monotonic()))
                self.late_s.append(monotonic() - began - each.at_s)
                group.create_task(self._ask(each, number))

    async def keep(self, tenants: Mapping[str, int], seconds: float, content: bytes) -> None:
        """Of each tenant so many clients that ask again as soon as they are answered, or refused."""
        until = monotonic() + seconds

        async def client(tenant: str, number: int) -> None:
            while monotonic() < until:
                await self._ask(Arrival(0.0, tenant, content), number)

        async with asyncio.TaskGroup() as group:
            for tenant, count in tenants.items():
                for number in range(count):
                    group.create_task(client(tenant, number))

    async def _ask(self, arrival: Arrival, number: int) -> None:
        async with raw_client(self.running.port) as client:
            tenant = arrival.tenant.encode()
            whose = b"x-request-id: %b-%d\r\nauthorization: %b\r\n" % (tenant, number, tenant)
            await client.send(post(arrival.body, headers=whose))
            async with asyncio.timeout(120):
                await client.reader.readuntil(b"\r\n\r\n")
                # Its answer is whole, or it would not have begun: the rest is read with the connection's end.

    @property
    def served(self) -> list[Finished]:
        return [event for event in self.events if event.outcome == "ok"]

    @property
    def pool(self) -> Pool:
        (pool,) = self.running.router.fleet.pools.values()
        return pool

    @property
    def replica(self) -> Replica:
        return self.pool.replicas[0]


def tokens_by_tenant(served: Iterable[Finished]) -> Counter[str]:
    """Prompt and answer, as the engines counted."""
    sums: Counter[str] = Counter()
    for event in served:
        assert event.usage is not None
        sums[tenant_of(event)] += event.usage.prompt_tokens + event.usage.completion_tokens
    return sums


def tenant_of(event: Finished) -> str:
    return event.request_id.partition("-")[0]


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def jain(amounts: Sequence[float]) -> float:
    """1 if all have the same, 1/n if one has all (Jain, Chiu, Hawe 1984)."""
    return sum(amounts) ** 2 / (len(amounts) * sum(one * one for one in amounts))


@asynccontextmanager
async def overloaded(
    *,
    replicas: int = 2,
    bounds: QueueBounds | None = None,
    max_wait_s: float = 60.0,
    entry: str = "",
    more: str = "",
    policy: str = "least_requests",
    **options: object,
) -> AsyncIterator[Overload]:
    """`entry` is added to each replica's. `bounds` None: without a queue."""
    text = more if bounds is not None else f"{more}\n[queue]\nmax_requests = 0\n"
    async with simulated_engines(*["vllm"] * replicas, **options) as engines:
        listed = [f"{replica_entry(engine)}{entry}" for engine in engines]
        async with running_router(config_text(*listed, policy=policy, more=text)) as running:
            overload = Overload(running, engines)
            inference = running.router.inference
            dispatcher = inference._dispatcher
            inference._observer = overload.events.append
            if bounds is not None:
                # As if keys had told whom each request is from.
                running.router.queues = dispatcher._queues = Queues(QueueLimits(bounds, max_wait_s))
                running.router.inference._keys = TrustingKeys()  # type: ignore[assignment]
            yield overload
