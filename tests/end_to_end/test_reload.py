"""A router whose configuration changes while it serves: nobody notices but by what has changed."""

import gc
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.support.loops import run_strictly
from tests.support.raw_client import events_in, raw_client
from tests.support.reloading import (
    Visitors,
    ask,
    chat,
    named_replicas,
    put,
    reloading_text,
    said_by,
    until_config,
)
from tests.support.routers import RunningRouter, running_router
from tests.support.scripted_server import until
from tests.support.simulated import simulated_engines
from tests.support.worker_cases import Held

Test = Callable[[RunningRouter, httpx.AsyncClient], Awaitable[None]]


async def serving(text: str, file: Path, test: Test) -> None:
    async with (
        running_router(text, file) as running,
        httpx.AsyncClient(base_url=running.admin_url, trust_env=False, timeout=20) as admin,
    ):
        await test(running, admin)


async def change(
    running: RunningRouter, admin: httpx.AsyncClient, file: Path, text: str, number: int
) -> None:
    """Put another file in place and ask for it; it becomes this generation."""
    put(file, text)
    running.router.reloader.hasten()
    await until_config(admin, generation=number, reload_failed=False)


async def change_under_load(folder: Path, reloads: int) -> None:
    """Versions come, get what stable is, and go, while clients ask for the plain name and for pinned ones."""
    file = folder / "turnout.toml"
    async with named_replicas("v1-a", "v1-b", "v2-a", "v3-a") as peers:
        v1, v2, v3 = [peers["v1-a"], peers["v1-b"]], [peers["v2-a"]], [peers["v3-a"]]
        turns = [
            (reloading_text({"v1": v1, "v2": v2}), ["m", "m@v2", "m@v1"]),
            (reloading_text({"v1": v1, "v2": v2, "v3": v3}, stable="v2"), ["m", "m@v3", "m@v1"]),
            (
                reloading_text({"v1": v1[:1], "v3": v3}, stable="v3", model='aliases = ["n"]'),
                ["m", "n", "m@v1"],
            ),
            (reloading_text({"v1": v1}, policy="least_requests"), ["m", "m@v1"]),
        ]

        async def test(running: RunningRouter, admin: httpx.AsyncClient) -> None:
            async with Visitors(running.port, 6, ["m", "m@v1"]) as visitors:
                await visitors.turn()
                for number in range(reloads):
                    text, names = turns[number % len(turns)]
                    # Only names that are there before and after: others get their 404.
                    visitors.names = [name for name in visitors.names if name in names]
                    await visitors.turn()
                    if number > 2:  # the first ones are noticed, the others are told
                        await change(running, admin, file, text, number + 2)
                    else:
                        put(file, text)
                        await until_config(admin, generation=number + 2)
                    visitors.names = names
                    await visitors.turn()
                assert visitors.wrong == []
            assert set(visitors.answered) == {"v1", "v2", "v3"}
            assert running.router.fleet.pools.keys() == {("m", "v1")}

        await serving(reloading_text({"v1": v1}), file, test)


def test_reloads_under_load_fail_nothing(tmp_path: Path) -> None:
    """And each answer is of the version that it says: 20 times."""
    run_strictly(change_under_load(tmp_path, 20))


@pytest.mark.slow
def test_a_hundred_reloads_under_load_fail_nothing(tmp_path: Path) -> None:
    """The same, 100 times."""
    run_strictly(change_under_load(tmp_path, 100))


def test_a_stream_outlives_its_version(tmp_path: Path) -> None:
    """Retired in mid-stream it finishes; then its connections are closed, and nothing keeps what it had."""
    held, file = Held(), tmp_path / "turnout.toml"

    async def run() -> None:
        async with named_replicas("v1-a") as peers, held.replicas("ab") as old:
            v1, v2 = list(peers.values()), list(old.values())

            async def test(running: RunningRouter, admin: httpx.AsyncClient) -> None:
                policy = weakref.ref(running.router.fleet.routes["m@v2"].pool.policy)
                async with raw_client(running.port) as client, raw_client(running.port) as other:
                    await client.send(chat("m@v2", stream=True))
                    status, headers = await client.head()
                    assert (status, headers["x-turnout-version"]) == (200, "v2")
                    chunks = client.chunks()
                    seen = [await anext(chunks)]
                    await change(running, admin, file, reloading_text({"v1": v1}), 2)
                    gone = await ask(other, "m@v2")
                    assert (gone.status, gone.code) == (404, "version_retired")
                    assert gone.headers["x-turnout-replacement"] == "m"
                    assert said_by(await ask(other)) == "v1-a"
                    for event in held.go_on.values():
                        event.set()
                    seen += [piece async for piece in chunks]
                    assert events_in(b"".join(seen))[-1] == b"[DONE]"
                upstreams = running.router.upstreams
                await until(lambda: set(upstreams._by_replica) <= set(running.router.fleet.replicas))
                gc.collect()
                assert policy() is None

            await serving(reloading_text({"v1": v1, "v2": v2}, policy="expected_latency"), file, test)

    run_strictly(run())


def test_what_a_policy_has_learned_stays(tmp_path: Path) -> None:
    """A prompt goes to the replica that has it, after a reload that is about something else, too."""
    file = tmp_path / "turnout.toml"
    prompts = [f"{number} " + "all that was said before " * 200 for number in range(8)]

    async def run() -> None:
        async with simulated_engines("vllm", "vllm", "vllm") as engines:

            async def test(running: RunningRouter, admin: httpx.AsyncClient) -> None:
                policy = running.router.fleet.routes["m"].pool.policy
                async with raw_client(running.port) as client:
                    homes = [
                        (await ask(client, prompt=each)).headers["x-turnout-replica"] for each in prompts
                    ]
                    other = reloading_text(
                        {"v1": engines}, policy="expected_latency", more="[retries]\nmax_attempts = 2"
                    )
                    await change(running, admin, file, other, 2)
                    again = [
                        (await ask(client, prompt=each)).headers["x-turnout-replica"] for each in prompts
                    ]
                assert again == homes
                assert len(set(homes)) > 1
                assert running.router.fleet.routes["m"].pool.policy is policy

            await serving(reloading_text({"v1": engines}, policy="expected_latency"), file, test)

    run_strictly(run())


def test_who_waits_is_served_by_a_replica_that_comes(tmp_path: Path) -> None:
    """A request in the queue of a full version need not wait for the old replicas."""
    held, file = Held(), tmp_path / "turnout.toml"

    async def run() -> None:
        async with named_replicas("v1-b") as free, held.replicas("a") as full:
            bounded = reloading_text({"v1": list(full.values())}).replace(
                '"vllm" }', '"vllm", max_in_flight = 1 }'
            )

            async def test(running: RunningRouter, admin: httpx.AsyncClient) -> None:
                pool = running.router.fleet.routes["m"].pool
                async with raw_client(running.port) as client, raw_client(running.port) as waiting:
                    await client.send(chat(stream=True))
                    await client.first_piece()
                    await waiting.send(chat())
                    await until(lambda: pool.queued == 1)
                    both = reloading_text({"v1": [*full.values(), *free.values()]})
                    put(file, both.replace('"vllm" }', '"vllm", max_in_flight = 1 }'))
                    got = await waiting.answer()
                    assert (got.status, said_by(got)) == (200, "v1-b")
                    held.go_on["a"].set()

            await serving(bounded, file, test)

    run_strictly(run())


def test_a_release_under_way_goes_on(tmp_path: Path) -> None:
    """A reload says what there is; who gets what a release says, until its version is gone."""
    file = tmp_path / "turnout.toml"

    async def run() -> None:
        async with named_replicas("v1-a", "v2-a") as peers:
            both = {"v1": [peers["v1-a"]], "v2": [peers["v2-a"]]}

            async def test(running: RunningRouter, admin: httpx.AsyncClient) -> None:
                order = {"verb": "start", "version": "v2", "percent": 100, "manual": True}
                assert (await admin.post("/api/releases/m", json=order)).status_code == 200
                async with raw_client(running.port) as client:
                    assert said_by(await ask(client)) == "v2-a"
                    for number, more in ((2, "[timeouts]\ntotal_s = 100\n"), (3, "")):
                        text = reloading_text(both, more=more)
                        await change(running, admin, file, text, number)
                        assert said_by(await ask(client)) == "v2-a"
                    await change(running, admin, file, reloading_text({"v1": both["v1"]}), 4)
                    assert said_by(await ask(client)) == "v1-a"

            await serving(reloading_text(both), file, test)

    run_strictly(run())


def test_limits_change_and_keep_what_is_used(tmp_path: Path) -> None:
    """A budget that is used up stays so over a reload that is about something else, and a new one counts."""
    file = tmp_path / "turnout.toml"
    limit = '[[limits]]\nname = "all"\nrequests_per_minute = {}\nburst_s = {}\n'

    async def run() -> None:
        async with named_replicas("v1-a") as peers:
            v1 = list(peers.values())

            async def test(running: RunningRouter, admin: httpx.AsyncClient) -> None:
                async with raw_client(running.port) as client:

                    async def statuses(count: int) -> list[int]:
                        return [(await ask(client)).status for _ in range(count)]

                    async def become(generation: int, more: str) -> None:
                        text = reloading_text({"v1": v1}, more=more)
                        await change(running, admin, file, text, generation)

                    assert await statuses(3) == [200] * 3
                    # Two may come at once, and the next in 20 minutes.
                    await become(2, limit.format(0.05, 2400))
                    assert await statuses(3) == [200, 200, 429]
                    await become(3, limit.format(0.05, 2400) + "[timeouts]\ntotal_s = 100\n")
                    assert await statuses(1) == [429]
                    await become(4, "[timeouts]\ntotal_s = 100\n")
                    assert await statuses(3) == [200] * 3

            await serving(reloading_text({"v1": v1}), file, test)

    run_strictly(run())
