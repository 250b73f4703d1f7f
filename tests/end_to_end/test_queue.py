"""A fleet that is asked for more than it can do: it stays fair, fast and honest, and loses nothing.

Simulated engines over real sockets; every form that takes long prints what it measured.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from random import Random
from time import time

import pytest

from policies.limits.fair_queue import QueueBounds
from router.observe.events import Finished
from tests.support.loops import run_strictly
from tests.support.overload import (
    Overload,
    arrivals,
    body,
    jain,
    overloaded,
    quantile,
    tenant_of,
    tokens_by_tenant,
)
from tests.support.raw_client import RawClient, post, raw_client
from tests.support.scripted_server import until

SLOTS = 8
KNOWN = f", max_running = {SLOTS}"
"""What an operator says of an engine that does not say how many requests it runs."""
CONTENT = body(400)
HOG = "hog"
OTHERS = [f"t{number}" for number in range(9)]
REFUSALS = {"queue_full", "overloaded"}
SHORT_SCRAPES = "[scrape]\ninterval_s = 0.2"


async def warmed(it: Overload, seconds: float = 0.8) -> None:
    """Its engines have been read, and the machine has seen the code once."""
    await it.keep({"warm": 4}, seconds, CONTENT)
    it.events.clear()


def refusal_s(it: Overload) -> list[float]:
    return [event.duration_s for event in it.events if event.outcome in REFUSALS]


# ---- fairness ----


async def hogged(
    factor: float, rate_per_s: float, seconds: float, speed: float, bounds: QueueBounds
) -> Overload:
    """Nine tenants at a rate, and a tenth at `factor` times that; all together more than two engines can do."""
    async with overloaded(
        bounds=bounds, entry=KNOWN, more=SHORT_SCRAPES, max_num_seqs=SLOTS, speed=speed
    ) as it:
        await warmed(it)
        rates = dict.fromkeys(OTHERS, rate_per_s) | {HOG: factor * rate_per_s}
        began = time()
        await it.play(arrivals(rates, seconds, Random(1), CONTENT))
        # What is served after that is served without competition.
        it.contested = [event for event in it.served if event.at + event.duration_s < began + seconds]
        return it


def waits_of_others(it: Overload) -> list[float]:
    return [event.queue_wait_s for event in it.served if tenant_of(event) != HOG]


@pytest.mark.slow  # a machine that has other work is late with the others' requests, and there is no contest
def test_a_tenant_that_floods_the_fleet_gets_no_more_than_its_share() -> None:
    """Fifty times the requests of each of nine others buy it as many tokens as them, and refusals."""

    async def run() -> None:
        it = await hogged(50, 14.0, seconds=2.0, speed=1.5, bounds=QueueBounds(200))
        tokens = tokens_by_tenant(it.contested)
        assert len(tokens) == 10
        assert jain(list(tokens.values())) >= 0.85
        assert not any(event.outcome in REFUSALS for event in it.events if tenant_of(event) != HOG)
        assert any(event.outcome == "queue_full" for event in it.events)

    run_strictly(run())


@pytest.mark.slow
def test_others_hardly_notice_a_tenant_that_floods_the_fleet() -> None:
    """Jain's index of the tokens, and how long the others wait, beside ten equal tenants on the same fleet."""

    async def run() -> None:
        alone = await hogged(1, 4.5, seconds=20, speed=0.5, bounds=QueueBounds())
        flooded = await hogged(50, 4.5, seconds=20, speed=0.5, bounds=QueueBounds())
        index = jain(list(tokens_by_tenant(flooded.contested).values()))
        waits = [quantile(waits_of_others(it), 0.99) for it in (alone, flooded)]
        print(
            f"\nJain {index:.3f} (ten equal tenants {jain(list(tokens_by_tenant(alone.contested).values())):.3f}),"
            f" the others' wait p99 {waits[1]:.2f} s (alone {waits[0]:.2f} s), refusals p99"
            f" {1000 * quantile(refusal_s(flooded), 0.99):.1f} ms,"
            f" {dict(Counter(event.outcome for event in flooded.events))}"
        )
        assert index >= 0.95
        assert waits[1] <= 2 * waits[0]

    run_strictly(run())


# ---- goodput ----


async def peak_per_s(seconds: float, **options: object) -> float:
    """Answers a second without a queue, with as many clients as keep both engines full, and no more."""
    async with overloaded(max_num_seqs=SLOTS, **options) as it:  # type: ignore[arg-type]
        await warmed(it)
        began = time()
        await it.keep({"peak": 2 * (SLOTS + 2)}, seconds, CONTENT)
        return served_per_s(it.events, began, seconds)


async def overloaded_per_s(
    seconds: float,
    times: float,
    peak: float,
    settle_s: float,
    entry: str,
    max_requests: int = 200,
    **options: object,
) -> tuple[float, Overload]:
    async with overloaded(
        bounds=QueueBounds(max_requests, tenant_share=1.0),
        entry=entry,
        more=SHORT_SCRAPES,
        max_num_seqs=SLOTS,
        **options,  # type: ignore[arg-type]
    ) as it:
        await warmed(it)
        began = time()
        await it.play(arrivals({"all": times * peak}, seconds, Random(2), CONTENT))
        return served_per_s(it.events, began + settle_s, seconds - settle_s), it


def served_per_s(events: Sequence[Finished], began: float, seconds: float) -> float:
    """Of those that ended in that time."""
    ended = [event.at + event.duration_s for event in events if event.outcome == "ok"]
    return sum(began <= at < began + seconds for at in ended) / seconds


def test_a_queue_keeps_the_engines_busy() -> None:
    """Held back in the router, requests still come to the engines in time."""

    async def run() -> None:
        peak = await peak_per_s(1.0, speed=1.0)
        got, it = await overloaded_per_s(1.5, 2.5, peak, 0.5, KNOWN, 40, speed=1.0)
        assert any(event.queue_wait_s for event in it.served)
        assert got >= 0.75 * peak

    run_strictly(run())


@pytest.mark.slow
@pytest.mark.parametrize("entry", [KNOWN, ""], ids=["known slots", "learned from its queue"])
def test_goodput_at_five_times_the_load(entry: str) -> None:
    """At least 90 % of the peak, and refusals at once."""

    async def run() -> None:
        peak = await peak_per_s(8, speed=0.5)
        got, it = await overloaded_per_s(12, 5.0, peak, 3.0, entry, speed=0.5)
        refused = refusal_s(it)
        print(
            f"\n{got:.1f} answers/s, peak {peak:.1f}; {len(refused)} refusals,"
            f" p99 {1000 * quantile(refused, 0.99):.1f} ms, longest wait"
            f" {max(event.queue_wait_s for event in it.served):.2f} s"
        )
        assert got >= 0.9 * peak
        assert refused

    run_strictly(run())


@pytest.mark.slow
def test_goodput_of_engines_whose_memory_is_the_limit() -> None:
    """Known from their metrics alone: tokens in flight against the KV cache, no number of requests."""

    async def run() -> None:
        options = {"num_blocks": 160, "max_model_len": 1024, "speed": 0.5, "prefix_caching": False}
        async with overloaded(more=SHORT_SCRAPES, **options) as it:  # type: ignore[arg-type]
            await warmed(it)
            began = time()
            await it.keep({"peak": 28}, 8, CONTENT)
            peak = served_per_s(it.events, began, 8)
        bounds = QueueBounds(max_requests=200, tenant_share=1.0)
        async with overloaded(bounds=bounds, more=SHORT_SCRAPES, **options) as it:  # type: ignore[arg-type]
            await warmed(it)
            began = time()
            most = 0.0

            async def watch() -> None:
                nonlocal most
                while True:
                    await asyncio.sleep(0.05)
                    if time() > began + 4:
                        waiting = [len(engine.core.scheduler.waiting) for engine in it.engines]
                        most = max(most, *waiting)

            watching = asyncio.create_task(watch())
            await it.play(arrivals({"all": 3 * peak}, 10, Random(2), CONTENT))
            watching.cancel()
            got = served_per_s(it.events, began + 3, 7)
        print(f"\n{got:.1f} answers/s, peak {peak:.1f}; most that waited in an engine {most:.0f}")
        assert got >= 0.9 * peak

    run_strictly(run())


def test_below_saturation_nobody_waits() -> None:
    """At half of what the fleet can do, no request has been in the queue."""

    async def run() -> None:
        async with overloaded(
            bounds=QueueBounds(), entry=KNOWN, more=SHORT_SCRAPES, max_num_seqs=SLOTS, speed=1.0
        ) as it:
            await warmed(it)
            await it.play(arrivals({"all": 20.0}, 2.0, Random(3), CONTENT))
            assert len(it.served) == len(it.events) > 20
            assert not any(event.queue_wait_s for event in it.events)

    run_strictly(run())


# ---- leaving ----


async def leave(client: RawClient, how: str) -> None:
    if how == "half_close":
        client.writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await client.closed()
    else:
        getattr(client, how)()


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_storm_of_leavers_is_never_dispatched_and_leaves_nothing(count: int) -> None:
    """They leave while they are queued, in every way; those that stay are all answered, and nobody else is."""

    async def run() -> None:
        random = Random(count)
        async with overloaded(
            replicas=1,
            bounds=QueueBounds(tenant_share=1.0),
            entry=KNOWN,
            more=SHORT_SCRAPES,
            max_num_seqs=SLOTS,
            speed=2.0,
        ) as it:
            (engine,) = it.engines
            await warmed(it)
            engine.core.stall()
            await until(lambda: it.replica.limit < 20)
            async with contextlib.AsyncExitStack() as stack:
                fill = [await stack.enter_async_context(raw_client(it.running.port)) for _ in range(10)]
                for number, client in enumerate(fill):
                    await client.send(post(CONTENT, headers=b"x-request-id: fill-%d\r\n" % number))
                await until(lambda: it.replica.in_flight == 10)
                for begin in range(0, count, 100):
                    crowd = [await stack.enter_async_context(raw_client(it.running.port)) for _ in range(100)]
                    for number, client in enumerate(crowd, begin):
                        await client.send(post(CONTENT, headers=b"x-request-id: leaves-%d\r\n" % number))
                    await until(lambda: it.pool.queued == 100)
                    ways = ("leave", "reset", "half_close")
                    await asyncio.gather(*(leave(client, random.choice(ways)) for client in crowd))
                    await until(lambda: it.pool.queued == 0)
                engine.core.resume()
                for client in fill:
                    assert (await client.answer()).status == 200
            await until(lambda: not it.replica.in_flight and not it.running.router.front_end.open_requests)
            asked = {
                record.request.headers["x-request-id"] for record in engine.log.of("/v1/chat/completions")
            }
            assert not any(id_.startswith("leaves-") for id_ in asked)
            assert Counter(event.outcome for event in it.events) == {"ok": 10, "client_left": count}
            assert it.replica.tokens == 0

    run_strictly(run())
