"""Clients that leave, at any moment: how soon the engine knows, and that nothing of them is left behind."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from loadtest.engine.server import RunningEngine
from router.flow.upstream import Connection, Upstream
from router.observe.events import Finished
from tests.support.front_ends import Kind, Stage, nothing_open, stage
from tests.support.loops import run_strictly
from tests.support.raw_client import STREAMED_CHAT, RawClient, post, raw_client
from tests.support.scripted_server import until
from tests.support.simulated import simulated_fleet

CHATS = "/v1/chat/completions"
LONG = STREAMED_CHAT.replace(b'"max_tokens":8', b'"max_tokens":4000,"ignore_eos":true')
MEDIUM = LONG.replace(b"4000", b"24")
IN_PROCESS: tuple[Kind, ...] = ("serve", "serve-uvloop", "uvicorn")
CALM = "[health]\ninterval_s = 60\n[scrape]\ninterval_s = 60"


# ---- how soon ----


def quantiles(values: Sequence[float]) -> str:
    """The median and the 99th percentile, milliseconds."""
    ordered = sorted(values)
    return ", ".join(f"p{q} {1000 * ordered[int(len(ordered) * q / 100)]:.2f} ms" for q in (50, 99))


def closings(engines: Sequence[RunningEngine]) -> dict[str, float | None]:
    """When the engines saw their connections closed, by request id, monotonic seconds."""
    records = [record for engine in engines for record in engine.log.of(CHATS)]
    return {record.request.headers["x-request-id"]: record.client_closed_s for record in records}


@pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])
def test_the_engine_knows_soon(uv: bool) -> None:
    """200 open streams whose clients leave one after the other: the time from their close to the engine's."""
    ids = [f"c{number}" for number in range(200)]

    async def run() -> None:
        # Steps of 0.1 s and more: router, engines and clients share a core here, and it should not be full.
        async with (
            simulated_fleet("vllm", "vllm", speed=0.06, more=CALM) as fleet,
            contextlib.AsyncExitStack() as stack,
        ):
            port = fleet.running.port
            clients = [await stack.enter_async_context(raw_client(port)) for _ in ids]
            for id_, client in zip(ids, clients, strict=True):
                await client.send(post(LONG, headers=b"x-request-id: %b\r\n" % id_.encode()))
            await asyncio.gather(*(client.first_piece() for client in clients))
            left: dict[str, float] = {}
            for id_, client in zip(ids, clients, strict=True):
                left[f"{id_}-1"] = monotonic()
                client.leave()
                await asyncio.sleep(0.004)
            await until(lambda: all(closings(fleet.engines).values()))
            await until(lambda: nothing_open(fleet.running.router))
            delays = [(at or 0.0) - left[id_] for id_, at in closings(fleet.engines).items()]
            print(f"\nfrom a client's close to its engine's, {len(delays)} streams: {quantiles(delays)}")
            assert len(delays) == len(ids)
            assert max(delays) < 5

    run_strictly(run(), uv=uv)


# ---- nothing is left ----


@dataclass(frozen=True, slots=True)
class Residue:
    """What requests take and must give back."""

    tasks: int
    files: int
    in_flight: int
    waiting: int
    attempts: int
    requests: int
    upstream_connections: int


def residue(stage: Stage) -> Residue:
    router = stage.router
    assert router is not None
    return Residue(
        tasks=len(asyncio.all_tasks()),
        files=len(list(Path("/proc/self/fd").iterdir())),
        in_flight=sum(replica.in_flight for replica in router.fleet.replicas),
        waiting=sum(replica.waiting for replica in router.fleet.replicas),
        attempts=len(router.watch),
        requests=router.front_end.open_requests,
        upstream_connections=router.upstreams.open_connections,
    )


class Crowd:
    """Clients that ask once each, and leave when and how chance has it."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.ends: Counter[str] = Counter()
        self._stage = stage
        self._random = Random(seed)

    async def come(self, count: int, *, at_once: int) -> None:
        """`count` of them, `at_once` at a time."""
        numbers = iter(range(count))

        async def visit() -> None:
            for number in numbers:
                async with self._stage.connect() as client:
                    self.ends[await self._visit(client, number)] += 1

        await asyncio.gather(*(visit() for _ in range(at_once)))

    async def _visit(self, client: RawClient, number: int) -> str:
        random = self._random
        body = random.choice((MEDIUM, MEDIUM.replace(b',"stream":true', b"")))
        patience_s = random.choice((0.0, random.uniform(0, 0.02), random.uniform(0, 0.4), 1.5))
        how = random.choice(("leave", "reset", "half_close"))
        await client.send(post(body, headers=b"x-request-id: c%d\r\n" % number))
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(patience_s):
                return str((await client.answer()).status)
        if how == "half_close":
            client.writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await client.closed()
        else:
            getattr(client, how)()
        return how


@pytest.fixture
def slow_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some connections to replicas take their time, so that clients leave while they are made."""
    random, connect = Random(7), Upstream.connect

    async def hesitate(self: Upstream) -> Connection:
        if random.random() < 0.3:
            await asyncio.sleep(random.uniform(0, 0.05))
        return await connect(self)

    monkeypatch.setattr(Upstream, "connect", hesitate)


@pytest.mark.usefixtures("slow_dialling")
@pytest.mark.parametrize("kind", IN_PROCESS)
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_nothing_is_left_of_clients_that_leave_at_any_time(kind: Kind, count: int, tmp_path: Path) -> None:
    """While connecting, before the first token, between attempts at failing replicas, in mid-stream, at the end."""
    events: list[Finished] = []

    async def run() -> None:
        async with stage(kind, tmp_path) as theatre:
            router = theatre.router
            assert router is not None
            router.inference._observer = events.append
            # They come and go on connections of their own.
            await router.prober.close()
            await router.scraper.close()
            await router.verifier.close()
            crowd = Crowd(theatre, seed=count)
            await crowd.come(20, at_once=10)
            await at_rest(theatre)
            before = residue(theatre)
            theatre.engines[0].faults.set(
                "reset;p=0.15",
                "status=500;p=0.15",
                "hang@head;p=0.1",
                "reset@3;p=0.1",
                "error@5;p=0.1",
                seed=1,
            )
            await crowd.come(count, at_once=40)
            theatre.engines[0].faults.clear()
            await at_rest(theatre)
            await until(lambda: residue(theatre) == before)
            print(f"\n{dict(crowd.ends)}, {dict(Counter(event.outcome for event in events))}")
            assert before.in_flight == before.waiting == before.attempts == before.requests == 0

    run_strictly(run(), uv=kind == "serve-uvloop")
    # A request that was reset before it was read is no request; of all others there is one event each.
    assert len(events) <= count + 20
    assert len(Counter(event.outcome for event in events)) >= 2
    assert not any(event.status == 500 for event in events)


async def at_rest(theatre: Stage) -> None:
    """No request, and no connection that is only kept for the next one."""
    await theatre.quiet()
    assert theatre.router is not None
    theatre.router.upstreams.close()
    await until(lambda: not any(engine.connections for engine in theatre.engines[:2]))
