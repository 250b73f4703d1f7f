"""Releases through a real router and the command: every verb, who may, and what a request gets meanwhile."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from router.commands.release import release
from router.commands.status import status
from tests.support.loops import run_strictly
from tests.support.versions import RunningVersions, simulated_versions

STEPS = "[models.m.canary]\nsteps = [10, 50, 100]\nmin_requests = 1000000\n"


def with_versions(test: Callable[[RunningVersions], Awaitable[None]], tmp_path: Path, **options: Any) -> None:
    async def run() -> None:
        top = f'[releases]\nfile = "{tmp_path}/releases.json"\n' + options.pop("top", "")
        async with simulated_versions(
            **{"v1": ["vllm"], "v2": ["vllm"], "model": STEPS, "top": top, **options}
        ) as versions:
            await test(versions)

    run_strictly(run())


async def turnout(versions: RunningVersions, *words: str, fails: bool = False) -> str:
    arguments = [words[0], "--admin", versions.running.admin_url, *words[1:]]
    result = await asyncio.to_thread(CliRunner().invoke, release, arguments)
    assert result.exit_code == (1 if fails else 0), result.output
    return result.output


async def shares(versions: RunningVersions, sessions: int = 60) -> dict[str, int]:
    answers = [await versions.version(session=f"s{number}") for number in range(sessions)]
    return {version: answers.count(version) for version in set(answers)}


def test_a_release_from_its_start_to_its_way_back(tmp_path: Path) -> None:
    """Each verb, by the command; sessions move from stable to the canary and never back."""

    async def test(versions: RunningVersions) -> None:
        assert await shares(versions) == {"v1": 60}
        told = await turnout(versions, "start", "m", "v2", "--manual", "--reason", "new weights")
        assert "m: canary, v2 has 10 % (step 1 of 3)" in told
        first = {n for n in range(60) if await versions.version(session=f"s{n}") == "v2"}
        assert 0 < len(first) < 20
        assert await versions.version("m:canary") == "v2"
        assert "v2 has 50 % (by hand)" in await turnout(versions, "weight", "m", "50")
        second = {n for n in range(60) if await versions.version(session=f"s{n}") == "v2"}
        assert first < second
        assert "m: paused" in await turnout(versions, "pause", "m")
        assert "a release of v2 is under way" in await turnout(versions, "start", "m", "v2", fails=True)
        assert "m: canary" in await turnout(versions, "resume", "m")
        assert "m: promoted, v2 is stable" in await turnout(versions, "promote", "m", "v2")
        assert await shares(versions) == {"v2": 60}
        assert [await versions.version(f"m{name}") for name in (":stable", "@v1", "@v2")] == [
            "v2",
            "v1",
            "v2",
        ]
        assert "v1 is stable" in await turnout(
            versions, "rollback", "m", "--actor", "ann", "--reason", "slow"
        )
        assert await shares(versions) == {"v1": 60}
        history = json.loads(await turnout(versions, "history", "m", "--json"))["history"]
        verbs = ["rollback", "promote", "resume", "pause", "weight", "start"]
        assert [one["verb"] for one in history] == verbs
        assert (history[0]["actor"], history[0]["reason"]) == ("ann", "slow")
        assert [one["generation"] for one in history] == [6, 5, 4, 3, 2, 1]
        assert "quarantined" in await turnout(versions, "status")
        refused = await turnout(versions, "start", "m", "v2", fails=True)
        assert "v2 was rolled back and is quarantined" in refused

    with_versions(test, tmp_path)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("m", {"verb": "fly"}, 409, "there is no verb 'fly'; there are: start, weight"),
        ("m", {"verb": "start", "version": "v9"}, 409, "there is no version 'v9'; there are: v1, v2"),
        ("m", {"verb": "start", "version": "v2", "percent": 101}, 409, "from 0 to 100 per cent, not 101"),
        ("m", {"verb": "rollback"}, 409, "no release is under way"),
        ("m", {"verb": "start", "versoin": "v2"}, 400, "unknown field `versoin`"),
        ("m", b"{", 400, "the body is no order of a release"),
        ("nobody", {"verb": "start", "version": "v2"}, 409, "there is no model 'nobody'; there are: m"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, path: str, body: dict[str, object] | bytes, status: int, says: str
) -> None:
    async def test(versions: RunningVersions) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx.AsyncClient(base_url=versions.running.admin_url) as admin:
            answer = await admin.post(f"/api/releases/{path}", content=content)
            assert answer.status_code == status
            assert says in answer.json()["error"]["message"]
            assert (await admin.get("/api/releases/m")).json()["generation"] == 0
            assert (await admin.get("/api/releases/nobody")).status_code == 404

    with_versions(test, tmp_path)


def test_a_release_outlives_its_router(tmp_path: Path) -> None:
    async def begun(versions: RunningVersions) -> None:
        await turnout(versions, "start", "m", "v2", "--percent", "100", "--manual")
        assert await shares(versions) == {"v2": 60}

    async def found(versions: RunningVersions) -> None:
        assert await shares(versions) == {"v2": 60}
        assert "v2 has 100 %" in await turnout(versions, "status", "m")

    with_versions(begun, tmp_path)
    with_versions(found, tmp_path)


def test_weights_are_told_and_are_prometheus_series(tmp_path: Path) -> None:
    async def test(versions: RunningVersions) -> None:
        await turnout(versions, "start", "m", "v2", "--manual", "--percent", "12.5")
        async with httpx.AsyncClient(base_url=versions.running.admin_url) as admin:
            metrics = (await admin.get("/metrics")).text
            (model,) = (await admin.get("/api/models")).json()["models"]
        shown = await asyncio.to_thread(CliRunner().invoke, status, ["--admin", versions.running.admin_url])
        assert "v1 (stable) 87.5 %" in shown.output
        assert (model["release"], [one["percent"] for one in model["versions"]]) == ("canary", [87.5, 12.5])
        assert 'turnout_release_weight{model="m",version="v2"} 0.125\n' in metrics
        assert 'turnout_release_weight{model="m",version="v1"} 0.875\n' in metrics

    with_versions(test, tmp_path)


def test_a_release_without_a_ramp_is_moved_by_people_alone(tmp_path: Path) -> None:
    async def test(versions: RunningVersions) -> None:
        await turnout(versions, "start", "m", "v2")
        document = json.loads(await turnout(versions, "status", "m", "--json"))
        assert (document["manual"], document["percent"]) == (True, 1.0)

    with_versions(test, tmp_path, model="")


def test_a_version_that_is_not_what_it_should_be_is_not_released(tmp_path: Path) -> None:
    """Its state says why, and so does the refusal."""

    async def test(versions: RunningVersions) -> None:
        view = json.loads(await turnout(versions, "status", "m", "--json"))
        assert [one["state"] for one in view["versions"]] == ["stable", "verify_failed"]
        refused = await turnout(versions, "start", "m", "v2", fails=True)
        assert "v2 has no replica that is ready" in refused

    async def run() -> None:
        async with simulated_versions(
            v1=["vllm"],
            v2=["vllm"],
            top=f'[releases]\nfile = "{tmp_path}/releases.json"\n',
            more={"v2": "expect = { engine_version = '0.0.1' }"},
        ) as versions:
            await test(versions)

    run_strictly(run())
