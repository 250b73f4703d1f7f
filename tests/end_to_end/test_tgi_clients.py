"""TGI's own clients against the router: in front of TGI, of other engines by translation, and of both.

Nothing in the clients is changed but the URL.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import text_generation.errors as tgi_errors  # type: ignore[import-untyped]
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import OverloadedError as HubOverloadedError
from huggingface_hub.errors import ValidationError as HubValidationError
from openai import AsyncOpenAI
from text_generation import AsyncClient, Client

from tests.support.clients import StandingFleets, say, standing_fleets
from tests.support.simulated import RunningFleet, simulated_fleet

PROMPT = "tell me a story"
LONG = "tell me a story " * 9000
QUESTION: Any = [{"role": "user", "content": PROMPT}]
FLEETS = [("tgi",), ("vllm",), ("trtllm",), ("triton",), ("tgi", "vllm")]
BY_NAME: Callable[[tuple[str, ...]], str] = "+".join

# text_generation 0.7 calls a method that pydantic deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture(scope="module")
def fleets() -> Iterator[StandingFleets]:
    with standing_fleets() as fleets:
        yield fleets


Ask = Callable[[RunningFleet], Awaitable[None]]


def with_fleet(fleets: StandingFleets, ask: Ask, *dialects: str) -> None:
    fleet = fleets.of(*dialects)

    async def test(_: AsyncOpenAI) -> None:
        await ask(fleet)

    fleets.run(test, *dialects)


async def texts_of(events: AsyncIterator[Any]) -> tuple[list[str], list[Any]]:
    """The texts of the tokens that are none of the model's marks, and the events."""
    seen = [event async for event in events]
    return [event.token.text for event in seen if not event.token.special], seen


# ---- text_generation ----


@pytest.mark.parametrize("dialects", FLEETS, ids=BY_NAME)
def test_generate(fleets: StandingFleets, dialects: tuple[str, ...]) -> None:
    """Both clients get the text and the details; the text is what a completion of the prompt says."""

    async def ask(fleet: RunningFleet) -> None:
        url = fleet.running.url
        for _ in dialects:
            answer = await AsyncClient(url).generate(PROMPT, max_new_tokens=5)
            again = await asyncio.to_thread(Client(url).generate, PROMPT, max_new_tokens=5)
            assert answer.generated_text == again.generated_text
            assert len(answer.generated_text.split()) == 5
            assert answer.details.finish_reason == "length"
            assert answer.details.generated_tokens == 5

    with_fleet(fleets, ask, *dialects)


@pytest.mark.parametrize("dialects", FLEETS, ids=BY_NAME)
def test_generate_stream(fleets: StandingFleets, dialects: tuple[str, ...]) -> None:
    """The tokens are the text, and the last event has it whole, with the details, once."""

    async def ask(fleet: RunningFleet) -> None:
        url = fleet.running.url
        for _ in dialects:
            whole = (await AsyncClient(url).generate(PROMPT, max_new_tokens=5)).generated_text
            texts, events = await texts_of(AsyncClient(url).generate_stream(PROMPT, max_new_tokens=5))
            synchronous = await asyncio.to_thread(
                lambda: list(Client(url).generate_stream(PROMPT, max_new_tokens=5))
            )
            assert "".join(texts) == whole
            assert [event.generated_text for event in events] == [None] * (len(events) - 1) + [whole]
            assert events[-1].details.finish_reason == "length"
            assert events[-1].details.generated_tokens == 5
            assert synchronous[-1].generated_text == whole

    with_fleet(fleets, ask, *dialects)


@pytest.mark.parametrize("dialects", FLEETS, ids=BY_NAME)
def test_parameters_mean_what_they_mean_to_tgi(fleets: StandingFleets, dialects: tuple[str, ...]) -> None:
    """Greedy unless told to sample, the prompt on demand, stop strings, a seed."""

    async def ask(fleet: RunningFleet) -> None:
        client = AsyncClient(fleet.running.url)
        plain = (await client.generate(PROMPT, max_new_tokens=5)).generated_text
        for _ in dialects:
            assert (await client.generate(PROMPT, max_new_tokens=5)).generated_text == plain
            full = await client.generate(PROMPT, max_new_tokens=5, return_full_text=True)
            assert full.generated_text == PROMPT + plain
            stop = plain.split()[2]
            stopped = await client.generate(PROMPT, max_new_tokens=5, stop_sequences=[stop])
            assert stopped.generated_text.removesuffix(stop) == plain[: plain.index(stop)]
        sampled = [
            await client.generate(
                PROMPT, max_new_tokens=5, do_sample=True, temperature=0.8, top_p=0.9, seed=seed
            )
            for seed in (1, 1, 2)
            for _ in dialects
        ]
        assert len({answer.generated_text for answer in sampled}) == 2

    with_fleet(fleets, ask, *dialects)


def test_what_only_tgi_can_do_goes_to_tgi(fleets: StandingFleets) -> None:
    """A grammar, the likeliest tokens of each step, best of two."""

    async def ask(fleet: RunningFleet) -> None:
        client = AsyncClient(fleet.running.url)
        before = len(fleet.engines[0].log.of("/"))
        for _ in range(2):
            await client.generate(PROMPT, max_new_tokens=5, best_of=2, do_sample=True)
            await client.generate(PROMPT, max_new_tokens=5, top_n_tokens=2)
            regex: Any = {"type": "regex", "value": "a+"}
            await client.generate(PROMPT, max_new_tokens=5, grammar=regex)
        assert len(fleet.engines[0].log.of("/")) - before == 6

    with_fleet(fleets, ask, "tgi", "vllm")


def test_what_only_tgi_can_do_is_refused_elsewhere(fleets: StandingFleets) -> None:
    async def ask(fleet: RunningFleet) -> None:
        with pytest.raises(tgi_errors.GenerationError, match="needs generate"):
            await AsyncClient(fleet.running.url).generate(PROMPT, best_of=2, do_sample=True)

    with_fleet(fleets, ask, "vllm")


@pytest.mark.parametrize("dialects", [("tgi",), ("vllm",)], ids=BY_NAME)
def test_chat_under_the_name_that_the_client_gives_every_model(
    fleets: StandingFleets, dialects: tuple[str, ...]
) -> None:
    """It always says `tgi`, which is an alias here, and sends every field that it knows, as null."""

    async def ask(fleet: RunningFleet) -> None:
        answer = await AsyncClient(fleet.running.url).chat(QUESTION, max_tokens=5)
        assert len(str(answer.choices[0].message.content).split()) == 5

    with_fleet(fleets, ask, *dialects)


# ---- errors ----


@pytest.mark.parametrize("dialects", FLEETS, ids=BY_NAME)
def test_a_prompt_beyond_the_context(fleets: StandingFleets, dialects: tuple[str, ...]) -> None:
    """TGI's name for it, from each client in its own class, streamed or not."""

    async def ask(fleet: RunningFleet) -> None:
        url = fleet.running.url
        with pytest.raises(tgi_errors.ValidationError, match="context_length_exceeded"):
            await AsyncClient(url).generate(LONG, max_new_tokens=5)
        with pytest.raises(tgi_errors.ValidationError, match="context_length_exceeded"):
            await texts_of(AsyncClient(url).generate_stream(LONG, max_new_tokens=5))
        with pytest.raises(HubValidationError, match="context_length_exceeded"):
            await asyncio.to_thread(InferenceClient(url).text_generation, LONG, max_new_tokens=5)

    with_fleet(fleets, ask, *dialects)


def test_an_overloaded_fleet() -> None:
    """Where every replica is full the clients hear TGI's word for it."""

    async def run() -> None:
        async with simulated_fleet("tgi", extra={"max_concurrent_requests": 0}) as fleet:
            url = fleet.running.url
            with pytest.raises(tgi_errors.OverloadedError):
                await AsyncClient(url).generate(PROMPT)
            with pytest.raises(tgi_errors.OverloadedError):
                await texts_of(AsyncClient(url).generate_stream(PROMPT))
            with pytest.raises(HubOverloadedError):
                await asyncio.to_thread(InferenceClient(url).text_generation, PROMPT)

    asyncio.run(run())


@pytest.mark.parametrize("dialects", [("tgi",), ("vllm",)], ids=BY_NAME)
def test_an_engine_that_fails(fleets: StandingFleets, dialects: tuple[str, ...]) -> None:
    """Before the first token a status; after it an event that no token is read from."""

    async def ask(fleet: RunningFleet) -> None:
        client = AsyncClient(fleet.running.url)
        with pytest.raises(tgi_errors.GenerationError, match="upstream_error"):
            await client.generate("say [[fault:status=500]]", max_new_tokens=5)
        with pytest.raises(tgi_errors.GenerationError, match="upstream_reset"):
            await texts_of(client.generate_stream("say [[fault:reset]]", max_new_tokens=5))
        seen = []
        with pytest.raises(tgi_errors.GenerationError, match="upstream_reset"):
            async for event in client.generate_stream("say [[fault:reset@3]]", max_new_tokens=9):
                seen.append(event)  # noqa: PERF401, the exception comes in between
        assert 1 <= len(seen) <= 3

    with_fleet(fleets, ask, *dialects)


# ---- huggingface_hub ----


@pytest.mark.parametrize("dialects", FLEETS, ids=BY_NAME)
def test_hub_text_generation(fleets: StandingFleets, dialects: tuple[str, ...]) -> None:
    """Plain, with details, streamed, both at once; and the full text where nothing is said, as TGI's `/` does."""

    async def ask(fleet: RunningFleet) -> None:
        client = AsyncInferenceClient(fleet.running.url)
        wish: Any = {"max_new_tokens": 5, "return_full_text": False}
        for _ in dialects:
            text = await client.text_generation(PROMPT, **wish)
            assert len(text.split()) == 5
            assert await client.text_generation(PROMPT, max_new_tokens=5) == PROMPT + text
            detailed: Any = await client.text_generation(PROMPT, details=True, **wish)
            assert (detailed.generated_text, detailed.details.generated_tokens) == (text, 5)
            pieces: Any = await client.text_generation(PROMPT, stream=True, **wish)
            assert "".join([piece async for piece in pieces]) == text
            events: Any = await client.text_generation(PROMPT, stream=True, details=True, **wish)
            texts, seen = await texts_of(events)
            assert "".join(texts) == seen[-1].generated_text == text
            assert seen[-1].details.generated_tokens == 5
            synchronous: Any = InferenceClient(fleet.running.url).text_generation
            assert await asyncio.to_thread(synchronous, PROMPT, **wish) == text

    with_fleet(fleets, ask, *dialects)


@pytest.mark.parametrize("dialects", FLEETS, ids=BY_NAME)
def test_hub_chat_completion(fleets: StandingFleets, dialects: tuple[str, ...]) -> None:
    """The hub's client on the OpenAI endpoint says what OpenAI's says."""

    async def ask(fleet: RunningFleet) -> None:
        client = AsyncInferenceClient(base_url=fleet.base_url, api_key="any")
        async with AsyncOpenAI(base_url=fleet.base_url, api_key="any", max_retries=0) as openai:
            for _ in dialects:
                expected = (await say(openai, {"messages": QUESTION, "max_tokens": 5})).text
                whole = await client.chat_completion(QUESTION, model="m", max_tokens=5)
                assert whole.choices[0].message.content == expected
                chunks = await client.chat_completion(QUESTION, model="m", max_tokens=5, stream=True)
                texts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
                assert "".join(texts) == expected

    with_fleet(fleets, ask, *dialects)
