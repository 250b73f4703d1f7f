"""A router process in front of two real vLLM replicas: what clients see, what the router sees, and a lost node."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, InternalServerError, NotFoundError

from tests.real_vllm.environment import VERSION
from tests.real_vllm.replicas import CONTEXT_TOKENS, MODEL, Replica, running
from tests.support.clients import Said, say
from tests.support.router_process import RouterProcess, router_process
from tests.support.routers import config_text

pytestmark = pytest.mark.real_vllm

QUESTION = [{"role": "user", "content": "How is a turnout thrown?"}]
GREEDY: dict[str, Any] = {"messages": QUESTION, "max_tokens": 12, "temperature": 0}
USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
BLOCK_TOKENS = 128
MAX_SEQUENCES = 256
"""vLLM's own default, which it does not tell."""
WAIT_S = 30.0
QUICK = """
[health]
interval_s = 0.5
up_after = 1
down_after = 2
"""

Test = Callable[[AsyncOpenAI], Awaitable[None]]


def entry(replica: Replica) -> str:
    return f'url = "{replica.url}", engine = "vllm", max_running = {MAX_SEQUENCES}'


def configuration(*replicas: Replica) -> str:
    text = config_text(*map(entry, replicas), policy="least_requests", more=QUICK)
    return text.replace('served_name = "served"', f'served_name = "{MODEL}"')


@pytest.fixture(scope="module")
def router(
    replicas: tuple[Replica, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RouterProcess]:
    with router_process(configuration(*replicas), tmp_path_factory.mktemp("router")) as process:
        yield process


def run(router: RouterProcess, test: Test) -> None:
    async def whole() -> None:
        async with AsyncOpenAI(base_url=router.base_url, api_key="any", max_retries=0, timeout=300) as client:
            await test(client)

    asyncio.run(whole())


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.05)


def metric(url: str, series: str) -> float:
    """The sum of all series of a metric that have these labels, written `name` or `name{label="value"`."""
    name, _, labels = series.partition("{")
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    mine = [line for line in lines if re.match(rf"{re.escape(name)}[{{ ]", line) and labels in line]
    return sum(float(line.rpartition(" ")[2]) for line in mine)


def replica_views(router: RouterProcess) -> dict[str, Mapping[str, Any]]:
    """`/api/replicas` by URL."""
    replicas = httpx.get(f"{router.admin_url}/api/replicas").json()["replicas"]
    return {replica["url"]: replica for replica in replicas}


# ---- what clients see ----


def test_a_stream_says_what_the_whole_answer_says(router: RouterProcess) -> None:
    """On either replica; usage comes only when asked for, and then it is that of the whole answer."""

    async def test(client: AsyncOpenAI) -> None:
        answers = [
            await say(client, GREEDY, **how) for how in ({}, {"stream": True}, USAGE) for _ in range(2)
        ]
        assert len({answer.text for answer in answers}) == 1
        assert {answer.choices[0].finish_reason for answer in answers} == {"length"}
        usages = [answer.usage for answer in answers]
        assert usages[2:4] == [None, None]
        assert {usage and usage[1] for usage in usages if usage} == {12}

    run(router, test)


def test_completions_of_token_ids_and_texts(router: RouterProcess) -> None:
    """A batch has a choice for each prompt, streamed or not."""

    async def test(client: AsyncOpenAI) -> None:
        for prompt in ("import asyncio", [300, 301, 302], ["import asyncio", "def main"], [[300], [301]]):
            wish = {"prompt": prompt, "max_tokens": 6, "temperature": 0}
            whole, streamed = await say(client, wish), await say(client, wish, **USAGE)
            assert streamed.without_ids() == whole.without_ids()
            assert streamed.usage == whole.usage
            assert len(whole.choices) == (2 if isinstance(prompt[0], (str, list)) and len(prompt) == 2 else 1)

    run(router, test)


def test_two_choices(router: RouterProcess) -> None:
    async def test(client: AsyncOpenAI) -> None:
        wish = GREEDY | {"n": 2, "temperature": 1, "seed": 5}
        for said in (await say(client, wish), await say(client, wish, **USAGE)):
            first, second = said.choices
            assert first.text != second.text
            assert said.usage is not None
            assert said.usage[1] <= 24

    run(router, test)


def test_logprobs(router: RouterProcess) -> None:
    """As many as tokens, with alternatives. The first request with them takes vLLM's CPU build 20 s."""

    async def test(client: AsyncOpenAI) -> None:
        wish = GREEDY | {"logprobs": True, "top_logprobs": 3}
        for said in (await say(client, wish), await say(client, wish, **USAGE)):
            (choice,) = said.choices
            assert len(choice.tokens) == 12
            assert choice.most_alternatives == 3

    run(router, test)


def test_structured_output(router: RouterProcess) -> None:
    """A model of noise, held to a schema."""
    schema = {
        "type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False,
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}

    async def test(client: AsyncOpenAI) -> None:
        wish = GREEDY | {"response_format": form, "max_tokens": 64}
        for said in (await say(client, wish), await say(client, wish, **USAGE)):
            assert json.loads(said.text)["ok"] in (True, False)
            assert said.choices[0].finish_reason == "stop"

    run(router, test)


def test_cached_tokens_are_reported(router: RouterProcess) -> None:
    """A prompt that a replica has seen is told as cached, whole blocks of it."""

    async def test(client: AsyncOpenAI) -> None:
        wish = {"model": "m", "prompt": [*range(2000, 2000 + BLOCK_TOKENS + 9)], "max_tokens": 1}
        whole, streamed = [], []
        for _ in range(4):
            answer = await client.completions.create(**wish)
            assert answer.usage is not None
            whole.append(answer.usage.prompt_tokens_details.cached_tokens)
        for _ in range(4):
            stream = await client.completions.create(**wish, **USAGE)
            last = [chunk async for chunk in stream][-1]
            streamed.append(last.usage.prompt_tokens_details.cached_tokens)
        # Each of the two replicas has to see it once.
        assert whole[0] == 0
        assert 1 <= (whole + streamed).count(0) <= 2
        assert set(whole + streamed) == {0, BLOCK_TOKENS}
        assert BLOCK_TOKENS in whole and BLOCK_TOKENS in streamed

    run(router, test)


def test_tokenize_and_detokenize(router: RouterProcess) -> None:
    """Under the public name; what goes there comes back."""
    with httpx.Client(base_url=router.url, timeout=30) as client:
        tokens = client.post("/tokenize", json={"model": "m", "prompt": "import asyncio"}).json()
        assert tokens["max_model_len"] == CONTEXT_TOKENS
        assert tokens["count"] == len(tokens["tokens"]) > 0
        text = client.post("/detokenize", json={"model": "m", "tokens": tokens["tokens"]}).json()
        assert text["prompt"].endswith("import asyncio")


@pytest.mark.parametrize("stream", [False, True])
def test_errors(router: RouterProcess, stream: bool) -> None:
    """Each as the client's own exception: the router's refusals, vLLM's, and what this model cannot do."""

    async def test(client: AsyncOpenAI) -> None:
        async def error(kind: type[Any], **more: Any) -> Any:
            with pytest.raises(kind) as raised:
                await say(client, GREEDY | more, stream=stream)
            return raised.value

        unknown = await error(NotFoundError, model=MODEL)
        assert (unknown.code, unknown.param) == ("model_not_found", "model")
        too_long = await error(BadRequestError, messages=[{"role": "user", "content": "word " * 9000}])
        assert too_long.code == "context_length_exceeded"
        too_many = await error(BadRequestError, max_tokens=CONTEXT_TOKENS + 1)
        assert (too_many.code, too_many.param) == ("context_length_exceeded", "max_tokens")
        cold = await error(BadRequestError, temperature=-1)
        assert (cold.code, cold.param) == ("invalid_request", "temperature")
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        no_parser = await error(BadRequestError, tools=[tool], tool_choice="auto")
        assert "--enable-auto-tool-choice" in no_parser.message
        for each in (unknown, too_long, too_many, cold, no_parser):
            assert each.response.headers["x-should-retry"] == "false"
        with pytest.raises(InternalServerError) as raised:
            await client.embeddings.create(model="m", input="a")
        assert (raised.value.status_code, raised.value.code) == (501, "endpoint_not_supported")

    run(router, test)


# ---- what the router does and sees ----


def test_least_requests_shares_out_what_runs_at_the_same_time(router: RouterProcess) -> None:
    """Eight streams that overlap: four on each replica."""

    async def test(client: AsyncOpenAI) -> None:
        wish = GREEDY | {"max_tokens": 48}
        answers = await asyncio.gather(*[say(client, wish, **USAGE) for _ in range(8)])
        assert sorted(Counter(answer.replica for answer in answers).values()) == [4, 4]

    run(router, test)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_generation(
    router: RouterProcess, replicas: tuple[Replica, ...], stream: bool
) -> None:
    """vLLM runs nothing soon after, and has made far fewer tokens than were asked for."""

    def total(name: str) -> float:
        return sum(metric(replica.url, name) for replica in replicas)

    before = total("vllm:generation_tokens_total")

    async def leave() -> None:
        wish = {
            "model": "m",
            "prompt": "a",
            "n": 16,
            "max_tokens": 4000,
            "ignore_eos": True,
            "stream": stream,
        }
        async with httpx.AsyncClient(base_url=router.url, timeout=60) as client:
            asking = asyncio.create_task(client.post("/v1/completions", json=wish))
            async with asyncio.timeout(WAIT_S):
                while await asyncio.to_thread(total, "vllm:generation_tokens_total") == before:
                    await asyncio.sleep(0.02)
            assert total("vllm:num_requests_running") >= 1
            asking.cancel()

    asyncio.run(leave())
    eventually(lambda: total("vllm:num_requests_running") == 0, "nothing runs")
    assert total("vllm:generation_tokens_total") - before < 16 * 4000
    eventually(lambda: not any(r["in_flight"] for r in replica_views(router).values()), "no slot is held")


def test_prober_and_scraper_see_both_replicas(router: RouterProcess, replicas: tuple[Replica, ...]) -> None:
    """Who they are, that they are well, and under load every figure that vLLM can tell, from vLLM."""
    told = {"running_requests", "waiting_requests", "prefill_tokens_per_s", "decode_tokens_per_s",
            "batch_utilisation", "kv_usage_ratio", "prefix_hit_ratio", "queue_wait_s"}  # fmt: skip

    async def load(client: AsyncOpenAI) -> None:
        prompt = [*range(2500, 2500 + BLOCK_TOKENS + 9)]
        await asyncio.gather(*[say(client, {"prompt": prompt, "max_tokens": 40}) for _ in range(8)])

    def told_of_both() -> bool:
        run(router, load)
        figures = [view["figures"] for view in replica_views(router).values()]
        return all(
            told <= {name for name, value in each.items() if value is not None}
            and each["from_router"] == []
            and each["decode_tokens_per_s"] > 0
            and 0 < each["prefix_hit_ratio"] <= 1
            for each in figures
        )

    eventually(told_of_both, "every figure is known")
    views = replica_views(router)
    assert views.keys() == {replica.url for replica in replicas}
    for view in views.values():
        assert (view["engine"], view["up"], view["ready"], view["warnings"]) == ("vllm", True, True, [])
        assert view["seen"] == {
            "engine": "vllm", "engine_version": VERSION, "model_ids": [MODEL], "kv_block_tokens": float(BLOCK_TOKENS),
        }  # fmt: skip


def test_what_the_router_counts(router: RouterProcess) -> None:
    """One more request of known size in `turnout_*`; vLLM may put two tokens into one event."""
    names = {
        "requests": 'turnout_requests_total{outcome="ok"',
        "tokens": 'turnout_tokens_total{kind="completion"',
        "first tokens": "turnout_time_to_first_token_seconds_count",
        "gaps": "turnout_inter_token_seconds_count",
    }

    def counted() -> dict[str, float]:
        return {what: metric(router.admin_url, series) for what, series in names.items()}

    async def test(client: AsyncOpenAI) -> None:
        await say(client, GREEDY, **USAGE)

    before = counted()
    run(router, test)
    grown = {what: value - before[what] for what, value in counted().items()}
    assert 1 <= grown.pop("gaps") <= 11
    assert grown == {"requests": 1, "tokens": 12, "first tokens": 1}


# ---- a lost node ----


def test_a_killed_replica_costs_no_answer(replicas: tuple[Replica, ...], tmp_path: Path) -> None:
    """Requests that are not streams go on while a replica is lost to SIGKILL, those that it had included."""
    with running(1) as (victim,), router_process(configuration(replicas[0], victim), tmp_path) as router:
        survivor = replicas[0].url.rpartition("/")[2]

        async def test(client: AsyncOpenAI) -> None:
            async def ask(tokens: int) -> Said:
                return await say(client, GREEDY | {"max_tokens": tokens}, extra_body={"ignore_eos": True})

            expected = await ask(12)
            asking = [asyncio.create_task(ask(3000)) for _ in range(6)]
            async with asyncio.timeout(WAIT_S):
                while (await asyncio.to_thread(replica_views, router))[victim.url]["in_flight"] < 1:
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(victim.kill)
            during = await asyncio.gather(*asking)
            after = [await ask(12) for _ in range(10)]
            assert {said.usage and said.usage[1] for said in during} == {3000}
            assert {said.text for said in after} == {expected.text}
            assert {said.replica for said in (*during, *after)} == {survivor}

        run(router, test)
        eventually(lambda: not replica_views(router)[victim.url]["up"], "the victim is down")
        assert replica_views(router)[replicas[0].url]["up"]
        assert metric(router.admin_url, "turnout_requests_total") == 17
        assert metric(router.admin_url, 'turnout_requests_total{outcome="ok"') == 17
