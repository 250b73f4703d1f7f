"""What clients see when replicas fail: nothing before the first token, one honest frame after it."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.support.simulated import RunningFleet, simulated_fleet

MESSAGES = [{"role": "user", "content": "tell me a story"}]
FAST = """
[timeouts]
connect_s = 0.5
first_token_s = 0.5
between_tokens_s = 0.5
total_s = 20
"""

BEFORE_THE_FIRST_TOKEN = [
    "reset", "reset@head", "hang", "hang@head", "junk", "oversize_head", "status=500", "status=503", "error", "abort",
    "end@head", "truncate_chunk", "black_hole", "refuse",
]  # fmt: skip


SILENT = {"hang", "hang@head", "black_hole", "end@head", "truncate_chunk"}


async def chat(client: httpx.AsyncClient, *, stream: bool, tokens: int = 8, **more: object) -> httpx.Response:
    body = {"model": "m", "messages": MESSAGES, "stream": stream, "max_tokens": tokens, **more}
    return await client.post("/v1/chat/completions", json=body)


def events(text: str) -> list[str]:
    assert text == "" or text.endswith("\n\n")
    frames = text.split("\n\n")[:-1]
    assert all(frame.startswith("data: ") for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames]


def content(text: str) -> str:
    parts = []
    for data in events(text):
        if data != "[DONE]" and "choices" in (chunk := json.loads(data)):
            parts += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
    return "".join(parts)


def with_fleet(
    test: Callable[[RunningFleet, httpx.AsyncClient], Awaitable[None]],
    *dialects: str,
    more: str = FAST,
    **options: object,
) -> None:
    async def run() -> None:
        async with (
            simulated_fleet(*dialects, more=more, **options) as fleet,
            httpx.AsyncClient(base_url=fleet.running.url, timeout=20) as client,
        ):
            await test(fleet, client)
            await nothing_left(fleet)

    asyncio.run(run())


async def nothing_left(fleet: RunningFleet) -> None:
    """No slot, task or watched attempt outlives its request."""
    router = fleet.running.router
    for _ in range(200):
        busy = [r for r in router.fleet.replicas if r.in_flight or r.waiting]
        if not busy and not len(router.watch) and not router.front_end.open_requests:
            return
        await asyncio.sleep(0.01)
    pytest.fail(
        f"left behind: {busy}, {len(router.watch)} attempts, {router.front_end.open_requests} requests"
    )


@pytest.mark.parametrize(
    ("fault", "stream"),
    [(fault, True) for fault in BEFORE_THE_FIRST_TOKEN]
    # Without a stream only the total timeout tells silence from work; that is another test.
    + [(fault, False) for fault in BEFORE_THE_FIRST_TOKEN if fault not in SILENT],
)
def test_a_failure_before_the_first_token_is_retried_elsewhere(fault: str, stream: bool) -> None:
    """Six requests over two replicas, one of them broken: six answers, equal to those of a sound fleet."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        expected = content((await chat(client, stream=True)).text)
        fleet.engines[0].faults.set(fault)
        for connection in list(fleet.engines[0].connections):
            connection.close()  # the fault may be one of new connections only
        attempts = []
        for _ in range(6):
            answer = await chat(client, stream=stream)
            assert answer.status_code == 200
            attempts.append(int(answer.headers["x-turnout-attempts"]))
            if stream:
                assert content(answer.text) == expected
                assert events(answer.text)[-1] == "[DONE]"
            else:
                assert answer.json()["choices"][0]["message"]["content"] == expected
        assert max(attempts) == 2

    with_fleet(test, "vllm", "vllm")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("reset", 502, "upstream_reset"),
        ("junk", 502, "upstream_protocol"),
        ("oversize_head", 502, "upstream_protocol"),
        ("status=500", 502, "upstream_error"),
        ("error", 502, "upstream_error"),
        ("hang", 504, "first_token_timeout"),
        ("black_hole", 504, "first_token_timeout"),
    ],
)
def test_when_nobody_can_answer_the_error_says_what_happened(fault: str, status: int, code: str) -> None:
    """One replica, no way round: the contract's status and code, and no stream is begun."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        fleet.engines[0].faults.set(fault)
        answer = await chat(client, stream=True)
        assert answer.headers["content-type"] == "application/json"
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers["x-should-retry"] == "true"
        assert fleet.engines[0].url.rpartition("/")[2] not in answer.text

    with_fleet(test, "vllm")


def test_a_replica_that_refuses_connections_is_an_error_and_soon_known_to_be_down() -> None:
    """502 while the router finds out, then 503, and an answer again soon after it is back."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        engine = fleet.engines[0]
        engine.faults.set("refuse")
        codes = set()
        while "no_healthy_replica" not in codes:
            answer = await chat(client, stream=True)
            assert answer.status_code in (502, 503)
            codes.add(answer.json()["error"]["code"])
        assert codes <= {"upstream_reset", "no_healthy_replica"}
        assert answer.headers["retry-after"] == "1"
        assert (await client.get("/readyz")).status_code == 503
        engine.faults.clear()
        while (answer := await chat(client, stream=True)).status_code != 200:
            await asyncio.sleep(0.05)

    with_fleet(test, "vllm")


@pytest.mark.parametrize("fault", ["reset@3", "error@3", "abort@3", "end@3", "truncate_chunk@3", "hang@3"])
def test_a_failure_after_the_first_token_is_one_error_frame(fault: str) -> None:
    """The tokens that came, one error event, no `[DONE]`, and the body ends with correct framing."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        whole = content((await chat(client, stream=True)).text)
        fleet.engines[0].faults.set(fault)
        answer = await chat(client, stream=True)
        assert answer.status_code == 200
        frames = events(answer.text)
        assert "[DONE]" not in frames
        assert ["error" in json.loads(frame) for frame in frames].count(True) == 1
        assert json.loads(frames[-1])["error"]["code"] in {
            "upstream_reset",
            "upstream_error",
            "upstream_protocol",
            "between_tokens_timeout",
        }
        begun = content(answer.text)
        assert begun
        assert whole.startswith(begun)

    with_fleet(test, "vllm")


def test_a_client_error_is_nobody_elses_problem() -> None:
    """A prompt that is too long is refused once, as the client's fault, by its code."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "word " * 20_000}], "max_tokens": 5}
        answer = await client.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert answer.headers["x-should-retry"] == "false"
        assert sum(len(engine.log.of("/v1/chat/completions")) for engine in fleet.engines) == 1

    with_fleet(test, "vllm", "vllm")


def test_attempts_are_bounded() -> None:
    """Four broken replicas, three attempts."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        for engine in fleet.engines:
            engine.faults.set("status=500")
        answer = await chat(client, stream=False)
        assert answer.status_code == 502
        assert answer.headers["x-turnout-attempts"] == "3"
        assert sorted(len(engine.log.of("/v1/chat/completions")) for engine in fleet.engines) == [0, 1, 1, 1]

    with_fleet(test, "vllm", "vllm", "vllm", "vllm")


def test_the_total_time_covers_all_attempts() -> None:
    """Replicas that hang one after the other do not add up."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        for engine in fleet.engines:
            engine.faults.set("hang")
        began = asyncio.get_running_loop().time()
        answer = await chat(client, stream=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "total_timeout")
        assert asyncio.get_running_loop().time() - began < 5

    with_fleet(test, "vllm", "vllm", more="[timeouts]\ntotal_s = 1")


def test_a_kept_connection_that_died_is_replaced_unnoticed() -> None:
    """The engine's idle limit is no failure: same replica, one attempt."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        assert (await chat(client, stream=True)).status_code == 200
        for connection in list(fleet.engines[0].connections):
            connection.close()
        answer = await chat(client, stream=True)
        assert answer.status_code == 200
        assert answer.headers["x-turnout-attempts"] == "1"

    with_fleet(test, "vllm")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_generation(stream: bool) -> None:
    """The engine sees the disconnect, and nothing is held against it."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        engine = fleet.engines[0]
        body = {"model": "m", "messages": MESSAGES, "stream": stream, "max_tokens": 4000, "ignore_eos": True}
        with pytest.raises(httpx.ReadTimeout):
            if stream:
                async with client.stream("POST", "/v1/chat/completions", json=body, timeout=0.3) as answer:
                    async for _ in answer.aiter_raw():
                        await asyncio.sleep(0.01)
                        raise httpx.ReadTimeout("enough")
            else:
                await client.post("/v1/chat/completions", json=body, timeout=0.3)
        record = engine.log.of("/v1/chat/completions")[0]
        for _ in range(200):
            if record.client_closed_s is not None:
                break
            await asyncio.sleep(0.01)
        assert record.client_closed_s is not None

    with_fleet(test, "vllm", speed=1.0)


def test_retries_are_a_share_of_the_traffic() -> None:
    """A pool that is broken altogether is not asked three times as often: retries stop at their budget."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        for engine in fleet.engines:
            engine.faults.set("status=500")
        for _ in range(60):
            assert (await chat(client, stream=False)).status_code == 502
        asked = sum(len(engine.log.of("/v1/chat/completions")) for engine in fleet.engines)
        assert 60 < asked <= 60 + 10 + 60 * 0.1 + 1

    with_fleet(test, "vllm", "vllm", "vllm", more="[retries]\nbudget_floor_per_s = 0")


def test_a_client_may_ask_for_less_time() -> None:
    """`x-turnout-deadline-ms` shortens the total timeout; what is no number is refused."""

    async def test(fleet: RunningFleet, client: httpx.AsyncClient) -> None:
        fleet.engines[0].faults.set("hang")
        body = {"model": "m", "messages": MESSAGES}
        for said, status, code in (("300", 504, "total_timeout"), ("soon", 400, "invalid_request")):
            headers = {"x-turnout-deadline-ms": said}
            answer = await client.post("/v1/chat/completions", json=body, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)

    with_fleet(test, "vllm")
