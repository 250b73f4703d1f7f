"""Shadow traffic as clients do not notice it: real sockets, simulated engines, both front ends, several workers."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Literal

import httpx
import msgspec
import pytest

from loadtest.engine.server import RunningEngine
from router.admin.shadows import ShadowsView, ShadowView
from router.compose import Router
from router.flow.shadow import Lane
from tests.end_to_end.test_limits import key, limit
from tests.support.front_ends import Stage, fronted
from tests.support.loops import StrictLoop, run_strictly
from tests.support.raw_client import RawAnswer, post, raw_client
from tests.support.routers import RunningRouter, running_router
from tests.support.scripted_server import until
from tests.support.shadowing import ALL, shadow_text
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.worker_cases import ask, of_each_worker
from tests.support.workers import workers

QUIET = "[health]\ninterval_s = 60\n[scrape]\ninterval_s = 60\n"
PROBED = "[health]\ninterval_s = 0.1\ntimeout_s = 0.5\n"


def body(number: int = 0, *, stream: bool = True, greedy: bool = True, tokens: int = 12) -> bytes:
    members = {
        "model": "m",
        "messages": [{"role": "user", "content": f"question {number}"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": stream,
        **({"temperature": 0} if greedy else {}),
    }
    return json.dumps(members).encode()


@dataclass(frozen=True, slots=True)
class Pair:
    """A router with a replica in the version that serves and one in the version that gets copies."""

    served: RunningEngine
    copied: RunningEngine
    running: RunningRouter

    @property
    def router(self) -> Router:
        return self.running.router

    @property
    def lane(self) -> Lane:
        return lane_of(self.router)

    async def ask(self, content: bytes, headers: bytes = b"") -> RawAnswer:
        async with raw_client(self.running.port) as client:
            return await ask(client, post(content, headers=headers))

    async def shown(self) -> ShadowView:
        async with httpx.AsyncClient(base_url=self.running.admin_url) as admin:
            (view,) = msgspec.json.decode((await admin.get("/api/shadow")).content, type=ShadowsView).shadows
            return view

    async def metrics(self) -> str:
        async with httpx.AsyncClient(base_url=self.running.admin_url) as admin:
            return (await admin.get("/metrics")).text


def lane_of(router: Router) -> Lane:
    assert router.shadows is not None
    return router.shadows.lanes["m"]


@asynccontextmanager
async def versions(
    *, seeds: tuple[int, int] = (0, 0), shadow: str = ALL, more: str = QUIET, speed: float = 200.0
) -> AsyncIterator[Pair]:
    """Engines with equal seeds answer equally."""
    async with (
        simulated_engines("vllm", seed=seeds[0], speed=speed) as (served,),
        simulated_engines("vllm", seed=seeds[1], speed=speed) as (copied,),
        running_router(shadow_text(replica_entry(served), replica_entry(copied), shadow, more)) as running,
    ):
        yield Pair(served, copied, running)


def between(test: Callable[[Pair], Awaitable[None]], **options: object) -> None:
    async def run() -> None:
        async with versions(**options) as pair:  # type: ignore[arg-type]
            await test(pair)
            assert pair.router.shadows is not None
        assert (pair.router.shadows.open, pair.lane.held_bytes) == (0, 0)

    run_strictly(run())


def tasks_of_copies() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if "Shadows" in repr(task.get_coro())]


# ---- comparisons ----


@pytest.mark.parametrize("other", [0, 1], ids=["the same weights", "other weights"])
def test_greedy_answers_of_the_same_weights_agree_and_others_do_not(other: int) -> None:
    """Streamed or whole; and all the figures are there."""

    async def test(pair: Pair) -> None:
        for number in range(8):
            assert (await pair.ask(body(number, stream=number % 2 == 0))).status == 200
        await until(lambda: not pair.lane.open)
        view = await pair.shown()
        assert view.results == {"sent": 8, "compared": 8}
        assert view.text is not None
        assert view.text.pairs == 8
        assert (view.text.equal, view.differences["text"].differing) == ((8, 0) if other == 0 else (0, 8))
        assert (view.text.common_share == 1) is (other == 0)
        assert view.differences["prompt_tokens"].judged == 8
        assert view.differences["status"].differing == view.differences["prompt_tokens"].differing == 0
        counts = {name: measure.pairs for name, measure in view.measures.items()}
        # Tokens that were read at once have no time between them.
        assert 1 <= counts.pop("inter_token_s") <= 4
        assert counts == {"time_to_first_token_s": 4, "answer_s": 4, "output_tokens": 8}
        assert len(view.examples) == (0 if other == 0 else 8)
        label = 'model="m",result="compared",version="v2"'
        assert f"turnout_shadow_requests_total{{{label}}} 8.0" in await pair.metrics()

    between(test, seeds=(0, other), speed=20.0)


@pytest.mark.parametrize(
    "dialect", ["tgi", *(pytest.param(each, marks=pytest.mark.slow) for each in ("trtllm", "triton"))]
)
def test_versions_may_run_on_different_engines(dialect: str) -> None:
    """The copy of a client's request is translated as a client's would be."""

    async def run() -> None:
        async with (
            simulated_engines("vllm", speed=200.0) as (served,),
            simulated_engines(dialect, speed=200.0) as (copied,),
            running_router(shadow_text(replica_entry(served), replica_entry(copied), more=QUIET)) as running,
        ):
            pair = Pair(served, copied, running)
            for stream in (True, False):
                assert (await pair.ask(body(stream=stream))).status == 200
            await until(lambda: not pair.lane.open)
            view = await pair.shown()
            assert (view.results, view.codes) == ({"sent": 2, "compared": 2}, {})
            assert view.text is not None
            assert view.text.pairs == 2

    run_strictly(run())


# ---- nobody notices ----


def test_neither_limits_nor_client_metrics_count_copies() -> None:
    """What the client used is what the client sent; of a limit of one at a time the copy takes nothing."""
    limits = limit("l", per=["tenant"], requests_per_minute=100, tokens_per_minute=100_000, concurrency=1)

    async def test(pair: Pair) -> None:
        headers = b"authorization: Bearer secret\r\n"
        answers = [await pair.ask(body(number), headers) for number in range(3)]
        assert [answer.status for answer in answers] == [200] * 3
        await until(lambda: not pair.lane.open)
        assert (await pair.shown()).results == {"sent": 3, "compared": 3}
        answer = await pair.ask(body(9), headers)
        assert answer.headers["x-ratelimit-remaining-requests"] == "96"
        await until(lambda: not pair.lane.open)
        text = await pair.metrics()
        for line in (
            'turnout_requests_total{engine="vllm",model="m",outcome="ok",version="v1"} 4.0',
            'turnout_tokens_total{kind="completion",model="m",version="v1"} 48.0',
            'turnout_attempts_total{model="m",reason="first",version="v1"} 4.0',
            'turnout_limit_decisions_total{decision="admitted",limit="l"} 4.0',
        ):
            assert line in text
        counted = (
            "turnout_requests_total{",
            "turnout_tokens_total{",
            "turnout_request_seconds",
            "turnout_inter_token",
        )
        assert [
            line for line in text.splitlines() if line.startswith(counted) and 'version="v2"' in line
        ] == []
        assert len(pair.copied.log.of("/v1/chat/completions")) == 4

    between(test, more=QUIET + key("team", "secret") + limits)


FrontEnd = Literal["serve", "serve-uvloop", "uvicorn"]


@pytest.mark.parametrize("kind", ["serve", "serve-uvloop", "uvicorn"])
def test_every_front_end_copies_and_leaves_nothing_behind(kind: FrontEnd, tmp_path: Path) -> None:
    """Of clients that leave in the middle too; and a copy under way does not hold up the end."""

    async def run() -> None:
        async with (
            simulated_engines("vllm", speed=200.0) as (served,),
            simulated_engines("vllm", speed=200.0) as (copied,),
        ):
            text = shadow_text(replica_entry(served), replica_entry(copied), more=QUIET)
            async with fronted(kind, text, tmp_path) as stage:
                await _clients_come_and_go(stage, copied)
            assert tasks_of_copies() == []
            assert stage.router is not None
            assert lane_of(stage.router).held_bytes == 0

    with StrictLoop(uv=kind == "serve-uvloop") as loop:
        loop.run(run())


async def _clients_come_and_go(stage: Stage, copied: RunningEngine) -> None:
    assert stage.router is not None
    lane = lane_of(stage.router)
    for stream in (True, False):
        async with stage.connect() as client:
            assert (await ask(client, post(body(stream=stream)))).status == 200
    await until(lambda: not lane.open)
    assert len(copied.log.of("/v1/chat/completions")) == 2
    async with stage.connect() as client:
        await client.send(post(body(tokens=4000)))
        await client.first_piece()
        client.leave()
    ((_, tally),) = stage.router.shadow_counts.tallies.items()
    await until(lambda: tally.results.counts.get("skipped") == 1)
    copied.faults.set("hang")
    async with stage.connect() as client:
        assert (await ask(client, post(body()))).status == 200
    await until(lambda: lane.open == 1)
    assert tally.results.counts == {"sent": 3, "compared": 2, "skipped": 1}


FAULTS = {
    "hung": ("hang", ""),
    "dead": ("dead", ""),
    "10x slow": ("", "\nmax_open = 4"),
    "resets": ("reset@3", ""),
}


@pytest.mark.parametrize("case", FAULTS)
def test_whatever_the_shadow_version_does_clients_are_answered_as_ever(case: str) -> None:
    """All of them, by one attempt each; copies and what they hold stay bounded, and the rest is dropped."""
    fault, option = FAULTS[case]

    async def run() -> None:
        async with (
            simulated_engines("vllm", speed=200.0) as (served,),
            simulated_engines("vllm", speed=20.0 if case == "10x slow" else 200.0) as (copied,),
            running_router(
                shadow_text(replica_entry(served), replica_entry(copied), f"{ALL}{option}", PROBED)
            ) as running,
        ):
            pair = Pair(served, copied, running)
            if fault == "dead":
                copied.die()
            elif fault:
                copied.faults.set(fault)
            most_open = most_bytes = 0

            async def client(first: int) -> None:
                nonlocal most_open, most_bytes
                for number in range(first, first + 8):
                    answer = await pair.ask(body(number))
                    assert answer.status == 200
                    assert answer.events[-1] == b"[DONE]"
                    assert answer.headers["x-turnout-attempts"] == "1"
                    most_open = max(most_open, pair.lane.open)
                    most_bytes = max(most_bytes, pair.lane.held_bytes)

            async with asyncio.TaskGroup() as group:
                for number in range(6):
                    group.create_task(client(100 * number))
            results = Counter((await pair.shown()).results)
            assert most_open <= pair.lane.plan.max_open
            assert most_bytes <= pair.lane.plan.max_bytes
            drawn = results.total() - results["failed"] - results["compared"] - results["stopped"]
            assert drawn == 48
            if case in ("hung", "10x slow"):
                assert results["dropped_budget"] > 0
            if case == "dead":
                assert results["compared"] == 0
                assert results["failed"] + results["dropped_unavailable"] > 0
            if case == "resets":
                assert results["failed"] > 0

    run_strictly(run())


@pytest.mark.parametrize(
    "case", ["hung", *(pytest.param(each, marks=pytest.mark.slow) for each in ("healthy", "10x slow"))]
)
def test_the_latency_of_clients_does_not_move(case: str) -> None:
    """Requests with and without copies take turns, so that a busy machine is as busy for both."""

    async def test(pair: Pair) -> None:
        if case == "hung":
            pair.copied.faults.set("hang")
        assert pair.router.shadows is not None
        taken: dict[bool, list[float]] = {True: [], False: []}
        async with raw_client(pair.running.port) as client:
            for number in range(120):
                copies = number % 2 == 0
                pair.router.shadows._draining = lambda copies=copies: not copies
                began = monotonic()
                assert (await ask(client, post(body(number)))).status == 200
                taken[copies].append(monotonic() - began)
        results = Counter((await pair.shown()).results)
        assert results["sent"] >= (1 if case == "hung" else 10)
        # A copy is sent after the answer, into the time of the next request, which has none of its own.
        assert median(taken[True]) < 1.5 * median(taken[False])
        assert median(taken[False]) < 2.0 * median(taken[True])

    between(test, speed=50.0) if case != "10x slow" else _between_unequal(test)


def _between_unequal(test: Callable[[Pair], Awaitable[None]]) -> None:
    async def run() -> None:
        async with (
            simulated_engines("vllm", speed=50.0) as (served,),
            simulated_engines("vllm", speed=5.0) as (copied,),
            running_router(shadow_text(replica_entry(served), replica_entry(copied), more=QUIET)) as running,
        ):
            await test(Pair(served, copied, running))

    run_strictly(run())


# ---- several workers ----


def test_the_sum_of_all_workers_is_shown(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            simulated_engines("vllm") as (served,),
            simulated_engines("vllm", seed=1) as (copied,),
        ):
            text = shadow_text(replica_entry(served), replica_entry(copied), more=QUIET)
            async with (
                workers(text.replace("settle_s = 0", "settle_s = 0\nworkers = 2"), tmp_path) as router,
                of_each_worker(router, each=1) as both,
            ):
                for client, *_ in both:
                    for number in range(3):
                        assert (await ask(client, post(body(number)))).status == 200
                await router.until_metric("turnout_shadow_requests_total", 6, result="compared")
                assert await router.metric("turnout_shadow_differences_total", kind="text") == 6
                document = (await router.admin.get("/api/shadow")).content
                (view,) = msgspec.json.decode(document, type=ShadowsView).shadows
                assert (view.against, view.version, view.pairs, len(view.examples)) == ("v1", "v2", 6, 6)
                assert view.measures["time_to_first_token_s"].pairs == 6

    run_strictly(run())
