"""`turnout serve` and its file: what is wrong is told and changes nothing, alone and with several workers."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from router.commands.status import status
from tests.support.loops import run_strictly
from tests.support.peers import Peer, PeerConnection, answer, scripted_peer
from tests.support.raw_client import raw_client
from tests.support.reloading import (
    Visitors,
    ask,
    named_replicas,
    put,
    reloading_text,
    said_by,
    status_of,
    until_config,
    until_config_of_all,
)
from tests.support.worker_cases import of_each_worker
from tests.support.workers import Workers, workers


@contextlib.asynccontextmanager
async def versions() -> AsyncIterator[dict[str, list[Peer]]]:
    async with named_replicas("v1-a", "v2-a") as peers:
        yield {name.partition("-")[0]: [peer] for name, peer in peers.items()}


def in_place(file: Path, text: str) -> None:
    """As careless writers do it: for a while there is a half."""
    with file.open("w") as opened:
        for half in (text[: len(text) // 2], text[len(text) // 2 :]):
            opened.write(half)
            opened.flush()
            time.sleep(0.1)


async def answers_of(router: Workers, model: str = "m") -> str:
    async with raw_client(router.port) as client:
        got = await ask(client, model)
        return said_by(got) if got.status == 200 else got.code


def test_what_is_wrong_is_told_and_changes_nothing(tmp_path: Path) -> None:
    """Bad TOML, an unknown option, a name that leads nowhere, a port that moves: each with its line."""
    file = tmp_path / "turnout.toml"

    async def run() -> None:
        async with versions() as there:
            good = reloading_text({"v1": there["v1"]})
            wrong = {
                good + "\nstable = \n": "is not valid TOML",
                good.replace("settle_s", "setle_s"): "turnout.toml:4: server.setle_s: unknown option",
                reloading_text(there, stable="v3"): "models.m.stable: there is no version 'v3'",
                reloading_text(there, server="max_json_depth = 8"): "server.max_json_depth: 64 -> 8",
                "": "models",
            }
            async with workers(good, tmp_path) as router:
                for text, told in wrong.items():
                    put(file, text)
                    router.router.process.send_signal(signal.SIGHUP)
                    async with asyncio.timeout(10):
                        while told not in " ".join((await status_of(router.admin))["mistakes"]):
                            await asyncio.sleep(0.02)
                    assert told in router.router.log.read_text()
                    assert await router.metric("turnout_config_reload_failed") == 1
                    assert await router.metric("turnout_config_generation") == 1
                    assert await answers_of(router) == "v1-a"
                    assert await answers_of(router, "m@v2") == "model_not_found"
                shown = CliRunner().invoke(status, ["--admin", router.router.admin_url])
                assert "last reload refused" in shown.output
                put(file, good)
                assert (await until_config(router.admin, reload_failed=False))["generation"] == 1
                put(file, reloading_text(there))
                await until_config(router.admin, generation=2, reload_failed=False, mistakes=[])
                assert await answers_of(router, "m@v2") == "v2-a"
                assert await router.metric("turnout_config_reload_failed") == 0

    run_strictly(run())


@pytest.mark.slow
def test_half_a_file_is_not_believed(tmp_path: Path) -> None:
    """Written in place, with a pause in the middle: what it says in the end counts, and nothing was refused."""
    file = tmp_path / "turnout.toml"

    async def run() -> None:
        async with versions() as there, workers(reloading_text(there), tmp_path) as router:
            for generation in (2, 3):
                text = reloading_text(there, more=f"[timeouts]\ntotal_s = {generation}00\n")
                await asyncio.to_thread(in_place, file, text)
                await until_config(router.admin, generation=generation)
            assert "refused" not in router.router.log.read_text()

    run_strictly(run())


def test_a_hang_up_reads_what_the_file_refers_to(tmp_path: Path) -> None:
    """A secret in a file of its own, which is not watched: it is another one after SIGHUP."""
    keys: list[bytes] = []

    async def note_key(connection: PeerConnection) -> None:
        while True:
            head, _ = await connection.request()
            if head.startswith(b"POST "):
                keys.extend(line for line in head.split(b"\r\n") if line.startswith(b"authorization"))
            await connection.send(answer(b"{}"))

    async def run() -> None:
        secret = tmp_path / "secret"
        secret.write_text("first")
        async with scripted_peer(note_key) as peer:
            text = reloading_text({"v1": [peer]}).replace('"vllm" }', '"vllm", api_key = "file:secret" }')
            async with workers(text, tmp_path) as router:
                await answers_of(router)
                secret.write_text("second")
                router.router.process.send_signal(signal.SIGHUP)
                await until_config(router.admin, generation=2)
                await answers_of(router)
        assert keys == [b"authorization: Bearer first", b"authorization: Bearer second"]

    run_strictly(run())


async def roll_back(admin: httpx.AsyncClient, generation: int) -> httpx.Response:
    return await admin.post("/api/config/rollback", json={"generation": generation})


@pytest.mark.slow
def test_the_way_back(tmp_path: Path) -> None:
    """An earlier generation is in force again until the file says something else; the file is not written."""
    file = tmp_path / "turnout.toml"

    async def run() -> None:
        async with versions() as there, workers(reloading_text(there), tmp_path) as router:
            admin = router.admin
            second = reloading_text(there, stable="v2")
            put(file, second)
            await until_config(admin, generation=2)
            assert await answers_of(router) == "v2-a"
            answered = await roll_back(admin, 1)
            assert answered.status_code == 200
            assert answered.json()["configuration"]["why"] == "rollback to 1"
            assert await answers_of(router) == "v1-a"
            assert file.read_text() == second
            file.touch()
            await asyncio.sleep(1.0)  # long enough for it to be looked at
            assert (await status_of(admin))["rolled_back_to"] == 1
            listed = (await admin.get("/api/config/history")).json()["generations"]
            assert [(each["generation"], each["in_force"]) for each in listed] == [
                (3, True),
                (2, False),
                (1, False),
            ]
            put(file, second + "# and a word\n")
            await until_config(admin, generation=4, rolled_back_to=None)
            assert await answers_of(router) == "v2-a"

    run_strictly(run())


# ---- several workers ----


def test_all_workers_change_and_so_do_those_that_come(tmp_path: Path) -> None:
    """A worker and an overview that are born while the file is refused serve by what is in force."""
    file = tmp_path / "turnout.toml"

    async def run() -> None:
        async with versions() as there:
            first = reloading_text({"v1": there["v1"]}, server="workers = 2")
            second = reloading_text(there, stable="v2", server="workers = 2")
            async with workers(first, tmp_path) as router:
                async with of_each_worker(router, each=1) as clients:
                    put(file, second)
                    await until_config_of_all(router, generation=2)
                    assert [said_by(await ask(client)) for client, *_ in clients] == ["v2-a"] * 2
                put(file, second.replace("stable", "stabel"))
                await until_config_of_all(router, reload_failed=True, generation=2)
                for victim in (router.children[1], router.children[0]):
                    os.kill(victim, signal.SIGKILL)
                    await router.until_gone(victim)
                    await router.until_answers()
                    await router.until_metric("turnout_workers", 2)
                    await until_config_of_all(router, reload_failed=True, generation=2)
                    async with of_each_worker(router, each=1) as clients:
                        assert [said_by(await ask(client)) for client, *_ in clients] == ["v2-a"] * 2

    run_strictly(run())


@pytest.mark.slow
def test_a_rollback_outlives_the_process_that_was_told(tmp_path: Path) -> None:
    """Its overview dies, and the next one does not take the file for a change."""
    file = tmp_path / "turnout.toml"

    async def run() -> None:
        async with versions() as there:
            first = reloading_text(there, server="workers = 2")
            async with workers(first, tmp_path) as router:
                put(file, reloading_text(there, stable="v2", server="workers = 2"))
                await until_config_of_all(router, generation=2)
                assert (await roll_back(router.admin, 1)).status_code == 200
                await until_config_of_all(router, generation=3, rolled_back_to=1)
                overview = router.children[0]
                os.kill(overview, signal.SIGKILL)
                await router.until_gone(overview)
                await router.until_answers()
                await router.until_metric("turnout_workers", 2)
                await asyncio.sleep(1.0)  # long enough for the file to be looked at
                await until_config_of_all(router, generation=3, rolled_back_to=1)
                assert await answers_of(router) == "v1-a"

    run_strictly(run())


@pytest.mark.slow
def test_a_hang_up_reloads_or_renews(tmp_path: Path) -> None:
    """With another file the workers stay and change, under load; with the same file they are renewed."""
    file = tmp_path / "turnout.toml"

    async def run() -> None:
        async with versions() as there:
            first = reloading_text(there, server="workers = 2")
            async with workers(first, tmp_path) as router:
                process = router.router.process
                async with Visitors(router.port, 4, ["m", "m@v1", "m@v2"]) as visitors:
                    before = router.children
                    await visitors.turn()
                    put(file, reloading_text(there, stable="v2", server="workers = 2"))
                    process.send_signal(signal.SIGHUP)
                    await until_config_of_all(router, generation=2)
                    await visitors.turn()
                    assert router.children == before
                assert visitors.wrong == []
                process.send_signal(signal.SIGHUP)
                await router.until(lambda: not set(router.children) & set(before[1:]), timeout_s=20)
                assert router.children[0] == before[0]
                await until_config_of_all(router, generation=2)
                assert await answers_of(router) == "v2-a"

    run_strictly(run())
