"""The default policy in a real router, before simulated engines: conversations stay, and say why."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from router.commands.explain import explain
from router.fleet.decision import DecisionView
from router.fleet.prompts import BLOCK_BYTES
from tests.support.loops import run_strictly
from tests.support.simulated import RunningFleet, simulated_fleet

SYSTEM = {"role": "system", "content": "You are a patient assistant who answers at length. " * 60}


def with_fleet(
    test: Callable[[RunningFleet, httpx.AsyncClient], Awaitable[None]], dialect: str = "vllm", **options: Any
) -> None:
    async def run() -> None:
        async with (
            simulated_fleet(*[dialect] * 3, policy="expected_latency", **options) as fleet,
            httpx.AsyncClient(base_url=fleet.running.url, timeout=20) as client,
        ):
            await test(fleet, client)

    run_strictly(run())


def question(number: int) -> dict[str, str]:
    return {"role": "user", "content": f"Question {number}: " + f"what is {number} of it? " * 40}


async def chat(client: httpx.AsyncClient, messages: list[dict[str, str]], **headers: str) -> httpx.Response:
    answer = await client.post(
        "/v1/chat/completions", json={"model": "m", "max_tokens": 4, "messages": messages}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    return answer


def test_a_conversation_stays_where_its_cache_is_while_others_spread() -> None:
    async def test(_fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        conversations = [[SYSTEM, question(number)] for number in range(12)]
        opened = await asyncio.gather(*(chat(client, each) for each in conversations))
        homes = [answer.headers["x-turnout-replica"] for answer in opened]
        assert len(set(homes)) == 3, "a burst of equals is spread"
        for number, messages in enumerate(conversations):
            messages += [
                {"role": "assistant", "content": opened[number].json()["choices"][0]["message"]["content"]},
                question(100 + number),
            ]
            answer = await chat(client, messages, **{"x-turnout-explain": "1"})
            decision = json.loads(answer.headers["x-turnout-decision"])
            assert decision["chosen"] == answer.headers["x-turnout-replica"] == homes[number]
            terms = {one["replica"]: one["terms"] for one in decision["candidates"]}
            assert (
                terms[homes[number]]["hit_tokens"] == max(each["hit_tokens"] for each in terms.values()) > 0
            )

    with_fleet(test)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/generate"])
@pytest.mark.parametrize("dialect", ["vllm", "tgi", "trtllm", "triton"])
def test_the_next_turn_is_known_to_be_cached_as_far_as_the_answer_before_it(dialect: str, path: str) -> None:
    """All the blocks of prompt and answer where engines cache what they say; TGI caches prompts only."""

    async def test(_fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        asked, said, more = question(1)["content"], "", "more? " * 100
        while len(said) < 3 * BLOCK_BYTES:
            # Answers end when they like; one that is long enough is only a few prompts away.
            asked += " and"
            first = await client.post(path, json=conversation(path, asked))
            said = said_in(path, first.raise_for_status().json())
        again = conversation(path, asked, said, more)
        answer = await client.post(path, json=again, headers={"x-turnout-explain": "1"})
        decision = json.loads(answer.headers["x-turnout-decision"])
        hit_tokens = max(one["terms"]["hit_tokens"] for one in decision["candidates"])
        bytes_per_token = len(asked + said + more) / decision["prompt_tokens"]
        known = asked if dialect == "tgi" else asked + said
        # But for a rest that fills no block, and the marks between messages.
        assert abs(hit_tokens * bytes_per_token - len(known)) < BLOCK_BYTES + 100

    with_fleet(test, dialect)


def conversation(path: str, *turns: str) -> dict[str, Any]:
    if path == "/v1/chat/completions":
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
        return {"model": "m", "max_tokens": 900, "messages": messages}
    if path == "/v1/completions":
        return {"model": "m", "max_tokens": 900, "prompt": "".join(turns)}
    return {"inputs": "".join(turns), "parameters": {"max_new_tokens": 900}}


def said_in(path: str, answer: dict[str, Any]) -> str:
    if path == "/generate":
        return str(answer["generated_text"])
    choice = answer["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def test_without_being_asked_nothing_is_explained() -> None:
    async def test(_fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        assert "x-turnout-decision" not in (await chat(client, [SYSTEM])).headers

    with_fleet(test)


def test_the_admin_listener_and_the_command_explain_a_request(tmp_path: Any) -> None:
    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        home = (await chat(client, [SYSTEM, question(1)])).headers["x-turnout-replica"]
        body = json.dumps({"model": "m", "messages": [SYSTEM, question(2)]})
        async with httpx.AsyncClient(base_url=fleet.running.admin_url) as admin:
            answer = await admin.post("/api/explain", content=body)
            assert answer.json()["chosen"] == home
            assert answer.json()["candidates"][0]["replica"] == home
            wrong = await admin.post("/api/explain", content='{"model": "no", "prompt": "x"}')
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "model_not_found")
            nothing = await admin.post("/api/explain", content='{"model": "m"}')
            assert (nothing.status_code, nothing.json()["error"]["code"]) == (400, "invalid_request")
        await asyncio.to_thread((tmp_path / "r.json").write_text, body)
        arguments = ["--admin", fleet.running.admin_url, "--request", str(tmp_path / "r.json")]
        shown = await asyncio.to_thread(CliRunner().invoke, explain, arguments)
        assert shown.exit_code == 0, shown.output
        assert f"chosen: {home}" in shown.output
        told = await asyncio.to_thread(CliRunner().invoke, explain, [*arguments, "--json"])
        assert json.loads(told.output)["chosen"] == home

    with_fleet(test)


def test_promises_about_caches_are_kept_and_counted() -> None:
    """What the router predicted is what the engines then reported, within a block or two an answer."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        messages = [SYSTEM]
        for number in range(6):
            messages.append(question(number))
            answer = await chat(client, messages)
            messages.append(
                {"role": "assistant", "content": answer.json()["choices"][0]["message"]["content"]}
            )
        async with httpx.AsyncClient(base_url=fleet.running.admin_url) as admin:
            lines = (await admin.get("/metrics")).text.splitlines()
        found = {
            line.split("{")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if "turnout_prefix_" in line[:15]
        }
        predicted = found["turnout_prefix_predicted_tokens_total"]
        reported = found["turnout_prefix_reported_tokens_total"]
        assert reported > 2_000
        assert 0.7 * reported < predicted < 1.2 * reported

    with_fleet(test, "trtllm")


def test_a_configuration_alone_is_explained_from_cold(tmp_path: Any) -> None:
    config = tmp_path / "t.toml"
    config.write_text(
        '[models.m]\nstable = "v1"\n[models.m.versions.v1]\nserved_name = "m"\n'
        'replicas = [{ url = "http://a:1", engine = "vllm" }, { url = "http://b:1", engine = "tgi", weight = 4.0 }]\n'
    )
    asked = tmp_path / "r.json"
    asked.write_text(json.dumps({"model": "m", "messages": [SYSTEM]}))
    arguments = ["--config", str(config), "--request", str(asked), "--json"]
    shown = CliRunner().invoke(explain, arguments)
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["chosen"] == "b:1"
    asked.write_text('{"model": "x", "prompt": "p"}')
    refused = CliRunner().invoke(explain, arguments)
    assert refused.exit_code == 1
    assert "404 model_not_found" in refused.output
    assert CliRunner().invoke(explain, ["--request", str(asked)]).exit_code == 2
    assert DecisionView.__struct_fields__[:4] == ("model", "version", "policy", "chosen")
