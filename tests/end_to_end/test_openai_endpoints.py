"""The official client beyond plain generation: models, embeddings, responses, and its own helpers."""

import base64
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI, InternalServerError, NotFoundError
from pydantic import BaseModel

from tests.support.clients import ALIASES, DIALECTS, StandingFleets, dialect_of, say, standing_fleets

QUESTION: list[Any] = [{"role": "user", "content": "tell me a story"}]

# fmt: off
TABLE = {
    # endpoint    who has it
    "embeddings": {"vllm"},
    "responses":  {"vllm", "trtllm"},
}
# fmt: on


class Reply(BaseModel):
    answer: str


@pytest.fixture(scope="module")
def fleets() -> Iterator[StandingFleets]:
    with standing_fleets() as fleets:
        yield fleets


# ---- models ----


def test_models_are_listed_by_every_name_that_can_be_asked_for(fleets: StandingFleets) -> None:
    """The client's own pagination ends, and each name can be retrieved by itself."""

    async def test(client: AsyncOpenAI) -> None:
        listed = {model.id: model async for model in await client.models.list()}
        assert listed.keys() == {"m", "m@v1", *ALIASES}
        for name, model in listed.items():
            assert (model.object, model.owned_by) == ("model", "turnout")
            assert await client.models.retrieve(name) == model
        assert (await client.models.retrieve("m:stable")).id == "m:stable"

    fleets.run(test, *DIALECTS)


def test_a_model_that_is_not_there_cannot_be_retrieved(fleets: StandingFleets) -> None:
    async def test(client: AsyncOpenAI) -> None:
        for name in ("nope", "m@v2", "served"):
            with pytest.raises(NotFoundError) as raised:
                await client.models.retrieve(name)
            assert (raised.value.code, raised.value.param) == ("model_not_found", "model")

    fleets.run(test, *DIALECTS)


# ---- endpoints that not all have ----


@pytest.mark.parametrize("endpoint", TABLE)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_alone(fleets: StandingFleets, endpoint: str, dialect: str) -> None:
    """The answer is the model's, or a 501 names the endpoint."""

    async def test(client: AsyncOpenAI) -> None:
        api: Any = getattr(client, endpoint)
        if dialect in TABLE[endpoint]:
            answer = await api.create(model="m", input="tell me a story")
            assert answer.model == "m"
            return
        with pytest.raises(InternalServerError) as raised:
            await api.create(model="m", input="tell me a story")
        assert (raised.value.status_code, raised.value.code) == (501, "endpoint_not_supported")
        assert f"it needs {endpoint}, which" in raised.value.message

    fleets.run(test, dialect)


@pytest.mark.parametrize("endpoint", TABLE)
def test_in_a_pool_of_all(fleets: StandingFleets, endpoint: str) -> None:
    """Only those who have it are asked, all of them in turn."""
    fleet = fleets.of(*DIALECTS)

    async def test(client: AsyncOpenAI) -> None:
        api: Any = getattr(client, endpoint)
        answers = [await api.with_raw_response.create(model="m", input="a") for _ in range(4)]
        served = {dialect_of(fleet, answer.headers["x-turnout-replica"]) for answer in answers}
        assert served == TABLE[endpoint]

    fleets.run(test, *DIALECTS)


def test_embeddings_in_both_encodings(fleets: StandingFleets) -> None:
    """Numbers, and the base64 that the client asks for unless it is told otherwise; texts and token ids."""

    async def test(client: AsyncOpenAI) -> None:
        plain = await client.embeddings.create(model="m", input=["one", "two"], encoding_format="float")
        packed = await client.embeddings.create(model="m", input=["one", "two"])
        raw = await client.embeddings.create(model="m", input=["one"], encoding_format="base64")
        assert [one.index for one in plain.data] == [0, 1]
        for mine, other in zip(plain.data, packed.data, strict=True):
            assert mine.embedding == pytest.approx(other.embedding)
        packed_bytes = base64.b64decode(str(raw.data[0].embedding))
        numbers = struct.unpack(f"<{len(packed_bytes) // 4}f", packed_bytes)
        assert list(numbers) == pytest.approx(plain.data[0].embedding)
        assert plain.usage.prompt_tokens > 0
        assert (await client.embeddings.create(model="m", input=[[11, 12], [13]])).model == "m"

    fleets.run(test, *DIALECTS)


@pytest.mark.parametrize("dialect", sorted(TABLE["responses"]))
def test_responses_streamed_and_whole_say_the_same(fleets: StandingFleets, dialect: str) -> None:
    """Every event is one of the client's own types, numbered without a gap, with one model's name."""

    async def test(client: AsyncOpenAI) -> None:
        wish: Any = {"model": "m", "input": "tell me a story", "max_output_tokens": 8}
        whole = await client.responses.create(**wish)
        assert whole.output_text
        assert whole.usage is not None
        events: list[Any] = [event async for event in await client.responses.create(**wish, stream=True)]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].type == "response.created"
        assert events[-1].type in {"response.completed", "response.incomplete"}
        last = events[-1].response
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == last.output_text == whole.output_text
        assert last.usage.output_tokens == whole.usage.output_tokens == 8
        assert {event.response.model for event in events if hasattr(event, "response")} == {"m"}
        assert {event.response.id for event in events if hasattr(event, "response")} == {last.id}

    fleets.run(test, dialect)


@pytest.mark.parametrize("dialect", sorted(TABLE["responses"]))
def test_a_response_that_breaks_raises_in_the_client(fleets: StandingFleets, dialect: str) -> None:
    """An error event, which the client turns into an exception, instead of an end."""

    async def test(client: AsyncOpenAI) -> None:
        stream = await client.responses.create(
            model="m", input="say [[fault:reset@3]]", max_output_tokens=40, stream=True
        )
        with pytest.raises(APIError) as raised:
            async for _ in stream:
                pass
        assert type(raised.value) is APIError
        assert raised.value.code == "upstream_reset"

    fleets.run(test, dialect)


# ---- the client's helpers ----


@pytest.mark.parametrize("dialect", ["vllm", "trtllm", "tgi"])
def test_a_pydantic_model_is_parsed(fleets: StandingFleets, dialect: str) -> None:
    """`parse` sends a strict schema and gives the object back, whole and streamed."""

    async def test(client: AsyncOpenAI) -> None:
        wish: Any = {"model": "m", "messages": QUESTION, "response_format": Reply}
        whole = await client.chat.completions.parse(**wish)
        assert whole.choices[0].message.parsed == Reply(answer="text")
        async with client.chat.completions.stream(**wish) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == Reply(answer="text")

    fleets.run(test, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_stream_helper_ends_with_the_whole_answer(fleets: StandingFleets, dialect: str) -> None:
    """It joins the chunks as strictly as a client can, and comes to what the whole answer says."""

    async def test(client: AsyncOpenAI) -> None:
        wish: Any = {"messages": QUESTION, "max_tokens": 2000}  # the helper takes a cut answer for an error
        whole = await say(client, wish)
        async with client.chat.completions.stream(
            model="m", **wish, stream_options={"include_usage": True}
        ) as stream:
            deltas = [event.delta async for event in stream if event.type == "content.delta"]
            final = await stream.get_final_completion()
        assert "".join(deltas) == final.choices[0].message.content == whole.text
        assert final.choices[0].finish_reason == "stop"
        assert final.usage is not None
        assert (final.usage.prompt_tokens, final.usage.completion_tokens) == whole.usage

    fleets.run(test, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_client_that_leaves_early_leaves_nothing_behind(fleets: StandingFleets, dialect: str) -> None:
    """The client's own way to leave is to close the stream; the router's slot is free again."""

    async def test(client: AsyncOpenAI) -> None:
        stream = await client.completions.create(model="m", prompt="say", max_tokens=2000, stream=True)
        async for _ in stream:
            break
        await stream.close()

    fleets.run(test, dialect)
