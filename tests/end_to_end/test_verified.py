"""A version is verified before it serves: real routers before engines that are, or are not, what they should be."""

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from loadtest.engine.server import RunningEngine
from router.config.toml_text import toml_value
from tests.support.artefacts import change_json, write_engine
from tests.support.loops import run_strictly
from tests.support.routers import RunningRouter, config_text, running_router
from tests.support.scripted_server import ScriptedServer, answer, until
from tests.support.simulated import replica_entry, simulated_engines

SOON = "[retries]\nbudget_floor_per_s = 1000\n[health]\ninterval_s = 0.2\nup_after = 1"
"""What is not as it should be is asked again soon, and a lost answer always may be."""
SAYS: dict[str, dict[str, Any]] = {
    "vllm": {
        "root": "org/served",
        "revision": "c0ffee",
        "version": "0.33.1",
        "dtype": "bfloat16",
        "quantization": "fp8",
        "kv_cache_dtype": "fp8_e4m3",
        "tensor_parallel_size": 2,
    },
    "tgi": {"model_sha": "c0ffee", "version": "3.3.7", "model_dtype": "torch.bfloat16"},
    "trtllm": {"version": "1.1.0"},
    "triton": {"version": "2.73.0", "engine_dir": "/engines/served"},
}
"""The knobs of each engine that decide what it says of itself."""
EXPECTED: dict[str, dict[str, str | int]] = {
    "vllm": {
        "model": "org/*",
        "revision": "c0ffee",
        "engine_version": "0.33.*",
        "dtype": "bfloat16",
        "quantization": "fp8",
        "kv_cache_dtype": "fp8_e4m3",
        "tensor_parallel": 2,
        "max_model_len": 4096,
    },
    "tgi": {
        "model": "served",
        "revision": "c0ffee",
        "engine_version": "3.3.*",
        "dtype": "bfloat16",
        "max_model_len": 4096,
    },
    "trtllm": {"model": "served", "engine_version": "1.1.0"},
    "triton": {"model": "/engines/*", "engine_version": "2.73.*"},
}
"""And all that can be expected of such a one."""
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}


def expecting(expected: dict[str, Any] | None) -> str:
    if expected is None:
        return ""
    return (
        "expect = { " + ", ".join(f"{name} = {toml_value(value)}" for name, value in expected.items()) + " }"
    )


@asynccontextmanager
async def router_of(
    engines: list[RunningEngine], expected: dict[str, Any] | None = None
) -> AsyncIterator[tuple[RunningRouter, httpx.AsyncClient]]:
    text = config_text(*map(replica_entry, engines), version=expecting(expected), more=SOON)
    async with running_router(text) as running, httpx.AsyncClient(base_url=running.url) as client:
        yield running, client


def served(engine: RunningEngine) -> int:
    """How many requests of clients came to this process of it."""
    return sum(
        record.request.method == "POST" and record.arrived_s >= engine.booted_at for record in engine.log
    )


async def replicas_of(running: RunningRouter) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=running.admin_url) as admin:
        answer = await admin.get("/api/replicas")
        return list(answer.json()["replicas"])


Built = tuple[str, dict[str, Any], dict[str, Any] | None]
"""Of a replica: its dialect, what is other about it than about an honest one, and what is expected of it."""


def honest(dialect: str) -> dict[str, Any]:
    return {"extra": SAYS[dialect], "max_model_len": 4096}


@asynccontextmanager
async def router_of_versions(
    *built: Built,
) -> AsyncIterator[tuple[RunningRouter, httpx.AsyncClient, list[RunningEngine]]]:
    """A version `m@vN` of one replica for each of these."""
    async with contextlib.AsyncExitStack() as stack:
        engines: list[RunningEngine] = []
        # What has begun anew is asked at once, however long the interval is.
        text = (
            config_text(more="[health]\nup_after = 1")
            .partition("[models.m.versions.v1]")[0]
            .replace('"v1"', '"v0"')
        )
        for number, (dialect, change, expected) in enumerate(built):
            [engine] = await stack.enter_async_context(simulated_engines(dialect, **honest(dialect) | change))
            engines.append(engine)
            text += f'[models.m.versions.v{number}]\nserved_name = "served"\n{expecting(expected)}\n'
            text += f"replicas = [ {{ {replica_entry(engine)} }} ]\n"
        running = await stack.enter_async_context(running_router(text))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=running.url))
        yield running, client, engines


async def chat(client: httpx.AsyncClient, number: int) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=CHAT | {"model": f"m@v{number}"})


def test_honest_replicas_serve() -> None:
    """Whether anything is expected of them or not."""

    async def run() -> None:
        built: list[Built] = [(dialect, {}, None) for dialect in SAYS]
        built += [(dialect, {}, EXPECTED[dialect]) for dialect in SAYS]
        async with router_of_versions(*built) as (running, client, _):
            await until(lambda: all(replica.up for replica in running.router.fleet.replicas))
            for number in range(len(built)):
                response = await chat(client, number)
                assert response.status_code == 200, response.text
            for one, (_, _, expected) in zip(await replicas_of(running), built, strict=True):
                assert one["verification"]["state"] == "verified"
                assert one["verification"]["mismatches"] == one["warnings"] == []
                assert expected is None or expected.keys() <= one["verification"]["says"].keys()

    run_strictly(run())


MUTATIONS: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("vllm", field, {"extra": SAYS["vllm"] | {knob: value}})
        for field, knob, value in (
            ("model", "root", "other/served"),
            ("revision", "revision", "decaf"),
            ("engine_version", "version", "0.34.0"),
            ("dtype", "dtype", "float16"),
            ("quantization", "quantization", "awq"),
            ("quantization", "quantization", ""),
            ("kv_cache_dtype", "kv_cache_dtype", "auto"),
            ("tensor_parallel", "tensor_parallel_size", 4),
        )
    ),
    ("vllm", "max_model_len", {"max_model_len": 8192}),
    ("vllm", "name", {"model": "other"}),
    ("vllm", "dtype", {"extra": SAYS["vllm"] | {"dev_mode": False}}),
    ("tgi", "revision", {"extra": SAYS["tgi"] | {"model_sha": "decaf"}}),
    ("tgi", "revision", {"extra": {"version": "3.3.7", "model_dtype": "bfloat16"}}),
    ("tgi", "dtype", {"extra": SAYS["tgi"] | {"model_dtype": "torch.float16"}}),
    ("tgi", "engine_version", {"extra": SAYS["tgi"] | {"version": "3.2.0"}}),
    ("tgi", "max_model_len", {"max_model_len": 2048}),
    ("tgi", "name", {"model": "other"}),
    ("trtllm", "engine_version", {"extra": {"version": "1.2.0"}}),
    ("trtllm", "name", {"model": "other"}),
    ("triton", "engine_version", {"extra": SAYS["triton"] | {"version": "2.60.0"}}),
    ("triton", "model", {"extra": SAYS["triton"] | {"engine_dir": "/models/served"}}),
    ("triton", "name", {"extra": SAYS["triton"] | {"model_name": "ensemble"}}),
]


def test_those_that_are_not_what_they_should_be_serve_nothing() -> None:
    """Each is told by its field; and when the right one takes its place, that one serves."""

    async def run() -> None:
        built: list[Built] = [(dialect, change, EXPECTED[dialect]) for dialect, _, change in MUTATIONS]
        async with router_of_versions(*built) as (running, client, engines):
            replicas = running.router.fleet.replicas
            await until(lambda: all(replica.verdict.state == "mismatch" for replica in replicas), 30)
            shown = await replicas_of(running)
            for number, (_, field, _) in enumerate(MUTATIONS):
                response = await chat(client, number)
                assert (response.status_code, response.json()["error"]["code"]) == (503, "no_healthy_replica")
                one = shown[number]
                assert one["up"] is False
                assert field in {each.partition(":")[0] for each in one["verification"]["mismatches"]}
            assert not any(map(served, engines))
            for (dialect, _, _), engine in zip(MUTATIONS, engines, strict=True):
                right = dataclasses.replace(engine.options, model="served", **honest(dialect))
                await engine.restart(right)
            await until(lambda: all(replica.up for replica in replicas), 30)
            for number in range(len(MUTATIONS)):
                assert (await chat(client, number)).status_code == 200

    run_strictly(run())


def test_a_name_that_is_not_listed_needs_no_expectation() -> None:
    """An engine that lists models has to list the one that requests name."""

    async def run() -> None:
        built: list[Built] = [(dialect, {"model": "other"}, None) for dialect in SAYS if dialect != "triton"]
        built.append(("triton", {"extra": {"model_name": "ensemble"}}, None))
        async with router_of_versions(*built) as (running, client, engines):
            replicas = running.router.fleet.replicas
            await until(lambda: all(replica.verdict.state == "mismatch" for replica in replicas))
            for number, one in enumerate(await replicas_of(running)):
                assert (await chat(client, number)).status_code == 503
                [mismatch] = one["verification"]["mismatches"]
                assert mismatch.startswith("name: expected ")
            assert not any(map(served, engines))

    run_strictly(run())


def test_an_adapter_is_looked_for_among_the_names() -> None:
    """Where adapters are listed; one that is loaded later is found then."""

    async def run() -> None:
        async with simulated_engines("vllm") as engines:
            text = config_text(*map(replica_entry, engines), version='adapter = "support"', more=SOON)
            async with running_router(text) as running, httpx.AsyncClient() as client:
                [replica] = running.router.fleet.replicas
                assert not replica.up
                url = f"{engines[0].url}/v1/load_lora_adapter"
                await client.post(url, json={"lora_name": "support", "lora_path": "/loras/support"})
                await until(lambda: replica.up)
                response = await client.post(f"{running.url}/v1/chat/completions", json=CHAT)
                assert response.status_code == 200

    run_strictly(run())


def test_what_a_replica_does_not_say_its_files_do(tmp_path: Path) -> None:
    """And they may come late, or change."""
    expected = {**write_engine(tmp_path / "a", Random(3)), "artefact": str(tmp_path / "artefact")}

    async def run() -> None:
        extra = {"version": str(expected["engine_version"])}
        async with (
            simulated_engines("trtllm", extra=extra) as engines,
            router_of(engines, expected) as (running, client),
        ):
            [one] = await replicas_of(running)
            assert one["verification"]["state"] == "warming"
            assert "the artefact cannot be read" in one["verification"]["waits_for"]
            [replica] = running.router.fleet.replicas
            (tmp_path / "a").rename(tmp_path / "artefact")
            await until(lambda: replica.up)
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
            before = served(engines[0])
            change_json(tmp_path / "artefact" / "tokenizer_config.json", "chat_template", value="{{ 1 }}")
            await until(lambda: not replica.up)
            assert [each.field for each in replica.verdict.mismatches] == ["chat_template_sha256"]
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 503
            assert served(engines[0]) == before

    run_strictly(run())


def test_one_that_is_still_loading_holds_up_nobody() -> None:
    """It says what it waits for, in `/api/replicas`, `/api/models` and a gauge; then it joins."""

    async def run() -> None:
        slow = ScriptedServer()
        slow.replies = {"/health": answer(200), "/v1/models": answer(503), "/metrics": answer(404)}
        await slow.start()
        async with simulated_engines("vllm") as engines:
            late = f'url = "{slow.url}", engine = "vllm", id = "late"'
            text = config_text(replica_entry(engines[0]), late, more=SOON)
            async with (
                running_router(text) as running,
                httpx.AsyncClient(base_url=running.url) as client,
                httpx.AsyncClient(base_url=running.admin_url) as admin,
            ):
                for _ in range(6):
                    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
                status = (await admin.get("/api/status")).json()
                one = next(each for each in status["replicas"] if each["id"] == "late")
                reason = "it is loading: /v1/models answered 503"
                assert (one["verification"]["state"], one["verification"]["waits_for"]) == ("warming", reason)
                [version] = status["models"][0]["versions"]
                assert version["unverified"] == {"late": [f"waits to be verified: {reason}"]}
                gauge = 'turnout_replica_verified{engine="vllm",model="m",replica="late",version="v1"} '
                assert _value(await admin.get("/metrics"), gauge) == 0
                slow.replies["/v1/models"] = answer(200, b'{"data": [{"id": "served"}]}')
                await until(lambda: all(each.up for each in running.router.fleet.replicas))
                assert _value(await admin.get("/metrics"), gauge) == 1
        await slow.stop()

    run_strictly(run())


def _value(response: httpx.Response, sample: str) -> float:
    labels = set(sample.partition("{")[2].rstrip("} ").split(","))
    [line] = [
        each
        for each in response.text.splitlines()
        if each.startswith(sample.partition("{")[0] + "{")
        and set(each.partition("{")[2].partition("}")[0].split(",")) == labels
    ]
    return float(line.rpartition(" ")[2])


def test_a_replica_that_cannot_be_asked() -> None:
    """One that has no such path serves, unless somebody expects something of it."""

    async def run() -> None:
        for expected, up in ((None, True), ({"engine_version": "1.*"}, False)):
            bare = ScriptedServer()
            bare.replies = {"/health": answer(200)}
            await bare.start()
            text = config_text(f'url = "{bare.url}", engine = "vllm"', version=expecting(expected), more=SOON)
            async with running_router(text) as running:
                [replica] = running.router.fleet.replicas
                assert replica.up is up
                complaints = [str(each) for each in replica.verdict.mismatches]
                assert complaints == (
                    [] if up else ["engine_version: expected 1.*, the replica does not say"]
                )
            await bare.stop()

    run_strictly(run())


@pytest.mark.parametrize(
    "dialect", ["tgi", *(pytest.param(each, marks=pytest.mark.slow) for each in ("vllm", "trtllm", "triton"))]
)
def test_under_load_nothing_is_answered_under_a_wrong_name(dialect: str) -> None:
    """A replica comes back as another model at once, as no probe can see: it answers not one request more.

    All the while the other replica serves, and what was lost with the connections is asked of it again.
    """

    async def run() -> None:
        async with (
            simulated_engines(dialect, dialect, extra=SAYS[dialect], max_model_len=4096) as engines,
            router_of(engines, EXPECTED[dialect]) as (running, client),
        ):
            swapped = engines[0]
            one = running.router.fleet.replicas[0]
            other = {"version": "9.9.9"}
            ended = asyncio.Event()
            statuses: list[int] = []

            async def ask(number: int) -> None:
                for turn in itertools.count():
                    if ended.is_set():
                        return
                    body = CHAT | {
                        "messages": [{"role": "user", "content": f"{number} {turn}"}],
                        "max_tokens": 20,
                    }
                    statuses.append((await client.post("/v1/chat/completions", json=body)).status_code)

            asking = [asyncio.create_task(ask(number)) for number in range(8)]
            for turn in range(2):
                seen = served(swapped)
                await until(lambda seen=seen: served(swapped) > seen + 5)
                right = swapped.options
                await swapped.restart(dataclasses.replace(right, extra=SAYS[dialect] | other, seed=turn + 1))
                await until(lambda: one.verdict.state == "mismatch")
                before = len(statuses)
                await until(lambda before=before: len(statuses) > before + 20)
                assert served(swapped) == 0
                await swapped.restart(right)
                await until(lambda: one.up)
            ended.set()
            await asyncio.gather(*asking)
            assert set(statuses) == {200}

    run_strictly(run())


def test_an_idle_replica_that_is_swapped() -> None:
    """No request, no probe and no turn of anybody shows it; the next request finds it out all the same."""

    async def run() -> None:
        async with simulated_engines("tgi") as engines:
            text = config_text(*map(replica_entry, engines), more="[health]\ninterval_s = 600")
            async with running_router(text) as running, httpx.AsyncClient(base_url=running.url) as client:
                assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
                [engine] = engines
                await engine.restart(dataclasses.replace(engine.options, model="other"))
                response = await client.post("/v1/chat/completions", json=CHAT)
                assert response.status_code in (502, 503)
                assert served(engine) == 0
                [replica] = running.router.fleet.replicas
                await until(lambda: replica.verdict.state == "mismatch")

    run_strictly(run())
