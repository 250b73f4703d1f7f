"""What goes wrong, as the official client's own exceptions: always a status of the contract, never a riddle."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    DefaultAsyncHttpxClient,
    InternalServerError,
    NotFoundError,
)

from tests.support.clients import DIALECTS, StandingFleets, say, standing_fleets
from tests.support.simulated import simulated_fleet

QUESTION = [{"role": "user", "content": "tell me a story"}]
SHORT = """
[timeouts]
connect_s = 0.5
first_token_s = 0.3
between_tokens_s = 0.3
total_s = 1
"""


@pytest.fixture(scope="module")
def fleets() -> Iterator[StandingFleets]:
    with standing_fleets(SHORT) as fleets:
        yield fleets


async def error_of(client: AsyncOpenAI, wish: dict[str, Any], **more: Any) -> APIStatusError:
    with pytest.raises(APIStatusError) as raised:
        await say(client, wish, **more)
    error = raised.value
    assert error.response.headers["content-type"] == "application/json"
    assert error.response.headers["x-request-id"]
    assert error.type in {"invalid_request_error", "server_error", "timeout_error"}
    return error


# ---- the client's own mistakes ----


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["n", "m@v9", "m:beta", "served"])
def test_a_model_that_is_not_there(fleets: StandingFleets, name: str, stream: bool) -> None:
    """Unknown models, versions and tags, and the engine's own name for the model, which is nobody's business."""

    async def test(client: AsyncOpenAI) -> None:
        error = await error_of(client, {"messages": QUESTION, "model": name}, stream=stream)
        assert isinstance(error, NotFoundError)
        assert (error.code, error.param) == ("model_not_found", "model")

    fleets.run(test, "vllm")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1.5}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": True, "stream_options": "usage"}, "stream_options"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_a_value_that_cannot_be(fleets: StandingFleets, fields: dict[str, Any], param: str) -> None:
    """What the router itself reads is refused by the field's name, the same in front of every engine."""

    async def test(client: AsyncOpenAI) -> None:
        error = await error_of(client, {"messages": QUESTION} | fields)
        assert isinstance(error, BadRequestError)
        assert (error.code, error.param) == ("invalid_request", param)
        assert f"'{param}'" in error.message

    fleets.run(test, *DIALECTS)


@pytest.mark.parametrize(("path", "param"), [("/chat/completions", "messages"), ("/completions", "prompt")])
def test_a_request_without_what_it_is_about(fleets: StandingFleets, path: str, param: str) -> None:
    """The client itself would not send this: another program might."""

    async def test(client: AsyncOpenAI) -> None:
        with pytest.raises(BadRequestError) as raised:
            await client.post(path, body={"model": "m"}, cast_to=object)
        assert (raised.value.code, raised.value.param) == ("invalid_request", param)

    fleets.run(test, *DIALECTS)


@pytest.mark.parametrize("prompt", [[], 7, {"text": "a"}])
def test_a_prompt_that_cannot_be(fleets: StandingFleets, prompt: object) -> None:
    """Neither text, nor texts, nor token ids."""

    async def test(client: AsyncOpenAI) -> None:
        error = await error_of(client, {"prompt": prompt})
        assert (error.status_code, error.code, error.param) == (400, "invalid_request", "prompt")

    fleets.run(test, *DIALECTS)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["vllm", "tgi"])
def test_a_value_that_the_engine_refuses(fleets: StandingFleets, dialect: str, stream: bool) -> None:
    """What only the engine judges is still the client's fault, and said before any stream begins."""

    async def test(client: AsyncOpenAI) -> None:
        error = await error_of(client, {"messages": QUESTION, "temperature": -1}, stream=stream)
        assert isinstance(error, BadRequestError)
        assert error.code == "invalid_request"
        assert "temperature" in error.message

    fleets.run(test, dialect)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialects", [*((each,) for each in DIALECTS), DIALECTS], ids="+".join)
def test_a_prompt_beyond_the_context(fleets: StandingFleets, dialects: tuple[str, ...], stream: bool) -> None:
    """One code for four engines' wordings, and one attempt: nobody else could have answered."""

    async def test(client: AsyncOpenAI) -> None:
        long = "word " * 20_000
        for wish in ({"messages": [{"role": "user", "content": long}]}, {"prompt": long}):
            error = await error_of(client, wish, max_tokens=5, stream=stream)
            assert isinstance(error, BadRequestError)
            assert error.code == "context_length_exceeded"
            assert error.response.headers["x-turnout-attempts"] == "1"

    fleets.run(test, *dialects)


def test_an_endpoint_that_is_not_there(fleets: StandingFleets) -> None:
    """OpenAI has more endpoints than the engines."""

    async def test(client: AsyncOpenAI) -> None:
        with pytest.raises(NotFoundError) as raised:
            await client.moderations.create(input="x")
        assert raised.value.code == "not_found"

    fleets.run(test, "vllm")


def test_a_body_that_is_too_large() -> None:
    """It is refused while it arrives, and the client is told rather than cut off."""

    async def run() -> None:
        async with (
            simulated_fleet("vllm", server="max_body_bytes = 2000") as fleet,
            AsyncOpenAI(base_url=fleet.base_url, api_key="any", max_retries=0) as client,
        ):
            error = await error_of(client, {"prompt": "word " * 1000})
            assert (error.status_code, error.code) == (413, "body_too_large")

    asyncio.run(run())


# ---- the engines' ----


FAULTS = {
    "status=500": "upstream_error", "error": "upstream_error", "reset": "upstream_reset", "junk": "upstream_protocol",
}  # fmt: skip
BLAMES_THE_CLIENT = ("trtllm", "error", False)
"""trtllm-serve answers 400 to whatever goes wrong in a request that is not streamed."""
FAILURES = [
    (dialect, fault, stream)
    for dialect in DIALECTS
    for fault in FAULTS
    for stream in (False, True)
    if (dialect, fault, stream) != BLAMES_THE_CLIENT
]


@pytest.mark.parametrize(("dialect", "fault", "stream"), FAILURES)
def test_an_engine_that_fails(fleets: StandingFleets, dialect: str, fault: str, stream: bool) -> None:
    """Before the first token a failure is a status, never a broken connection, and may be tried again."""

    async def test(client: AsyncOpenAI) -> None:
        error = await error_of(client, {"prompt": f"say [[fault:{fault}]]", "max_tokens": 5}, stream=stream)
        assert isinstance(error, InternalServerError)
        assert (error.status_code, error.code, error.type) == (502, FAULTS[fault], "server_error")
        assert error.response.headers["x-should-retry"] == "true"
        assert "127.0.0.1" not in error.message

    fleets.run(test, dialect)


@pytest.mark.parametrize(
    ("dialect", "stream", "code"),
    [
        ("vllm", True, "first_token_timeout"),
        ("trtllm", True, "first_token_timeout"),
        ("tgi", True, "first_token_timeout"),
        ("triton", False, "total_timeout"),
        ("vllm", False, "total_timeout"),
    ],
)
def test_an_engine_that_says_nothing(fleets: StandingFleets, dialect: str, stream: bool, code: str) -> None:
    """A stream's silence is told from work early, that of a whole answer only in the end."""

    async def test(client: AsyncOpenAI) -> None:
        error = await error_of(client, {"prompt": "say [[fault:hang]]", "max_tokens": 5}, stream=stream)
        assert isinstance(error, InternalServerError)
        assert (error.status_code, error.code, error.type) == (504, code, "timeout_error")

    fleets.run(test, dialect)


@pytest.mark.parametrize("fault", ["reset@3", "error@3", "end@3", "abort@3", "truncate_chunk@3", "hang@3"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_breaks_raises_in_the_client(fleets: StandingFleets, dialect: str, fault: str) -> None:
    """What came so far is the true beginning; then the client's own exception with the reason, no silent end."""

    async def test(client: AsyncOpenAI) -> None:
        texts: list[str] = []
        stream = await client.completions.create(
            model="m", prompt=f"say [[fault:{fault}]]", max_tokens=40, stream=True
        )
        with pytest.raises(APIError) as raised:
            async for chunk in stream:
                texts += [choice.text for choice in chunk.choices]
        assert type(raised.value) is APIError
        assert raised.value.code in {
            "upstream_reset", "upstream_error", "upstream_protocol", "between_tokens_timeout",
        }  # fmt: skip
        assert 1 <= len("".join(texts).split()) <= 4

    fleets.run(test, dialect)


# ---- nobody there, and the client's own retries ----


def test_a_fleet_with_nobody_ready() -> None:
    """503 with the time to wait, which the client heeds: its own second try finds the replica back."""

    async def run() -> None:
        async with simulated_fleet("vllm") as fleet:
            (replica,) = fleet.running.router.fleet.replicas
            replica.draining = True
            asked: list[Any] = []

            async def seen(response: Any) -> None:
                asked.append(response)
                replica.draining = False

            http = DefaultAsyncHttpxClient(event_hooks={"response": [seen]})
            async with AsyncOpenAI(
                base_url=fleet.base_url, api_key="any", max_retries=2, http_client=http
            ) as client:
                said = await say(client, {"prompt": "say", "max_tokens": 2})
                assert said.text
            assert [answer.status_code for answer in asked] == [503, 200]
            assert asked[0].json()["error"]["code"] == "no_healthy_replica"
            assert asked[0].headers["retry-after-ms"] == "1000"
            assert asked[0].headers["x-should-retry"] == "true"

    asyncio.run(run())


def test_the_client_is_told_not_to_repeat_what_cannot_succeed() -> None:
    """A 501 is a 5xx, which the client would repeat on its own."""

    async def run() -> None:
        statuses: list[int] = []

        async def seen(response: Any) -> None:
            statuses.append(response.status_code)

        async with simulated_fleet("triton") as fleet:
            http = DefaultAsyncHttpxClient(event_hooks={"response": [seen]})
            async with AsyncOpenAI(
                base_url=fleet.base_url, api_key="any", max_retries=2, http_client=http
            ) as client:
                await error_of(client, {"messages": QUESTION, "n": 2})
        assert statuses == [501]

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
def test_an_overloaded_engine(stream: bool) -> None:
    """TGI's refusal, which streams hide under status 200, is one 503 with the time to wait."""

    async def run() -> None:
        async with (
            simulated_fleet("tgi", extra={"max_concurrent_requests": 0}) as fleet,
            AsyncOpenAI(base_url=fleet.base_url, api_key="any", max_retries=0) as client,
        ):
            error = await error_of(client, {"messages": QUESTION}, stream=stream)
            assert (error.status_code, error.code) == (503, "overloaded")
            assert error.response.headers["retry-after"] == "1"

    asyncio.run(run())
