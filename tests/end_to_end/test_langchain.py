"""One conversation with LangChain, and one stream with curl: clients that nobody of this project wrote."""

import asyncio
import json
import shutil
from collections.abc import Iterator

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic import SecretStr

from tests.support.clients import DIALECTS, StandingFleets, standing_fleets
from tests.support.simulated import RunningFleet

CURL = shutil.which("curl")


@pytest.fixture(scope="module")
def fleets() -> Iterator[StandingFleets]:
    with standing_fleets() as fleets:
        yield fleets


def chat_model(fleet: RunningFleet) -> ChatOpenAI:
    return ChatOpenAI(
        model="m", base_url=fleet.base_url, api_key=SecretStr("any"), max_retries=0, max_completion_tokens=8
    )


@pytest.mark.parametrize("dialects", [*((each,) for each in DIALECTS), DIALECTS], ids="+".join)
def test_a_conversation(fleets: StandingFleets, dialects: tuple[str, ...]) -> None:
    """A question, its answer, and a second question that has both before it."""
    fleet = fleets.of(*dialects)

    async def test(_: AsyncOpenAI) -> None:
        model = chat_model(fleet)
        messages = [SystemMessage("Be brief."), HumanMessage("tell me a story")]
        first = await model.ainvoke(messages)
        assert isinstance(first, AIMessage)
        assert first.text
        assert first.response_metadata["model_name"] == "m"
        assert first.response_metadata["finish_reason"] == "length"
        assert first.usage_metadata is not None
        assert first.usage_metadata["output_tokens"] == 8
        second = await model.ainvoke([*messages, first, HumanMessage("and then?")])
        assert second.usage_metadata is not None
        assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]

    fleets.run(test, *dialects)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream(fleets: StandingFleets, dialect: str) -> None:
    """The pieces add up to the whole answer, and their usage to its usage."""
    fleet = fleets.of(dialect)

    async def test(_: AsyncOpenAI) -> None:
        model = chat_model(fleet)
        whole = await model.ainvoke("tell me a story")
        pieces = [piece async for piece in model.astream("tell me a story", stream_usage=True)]
        joined = pieces[0]
        for piece in pieces[1:]:
            joined += piece
        assert joined.text == whole.text
        assert len(pieces) > 3
        assert joined.usage_metadata is not None
        assert whole.usage_metadata is not None
        assert joined.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"]

    fleets.run(test, dialect)


@pytest.mark.skipif(CURL is None, reason="there is no curl")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_curl_without_a_buffer(fleets: StandingFleets, dialect: str) -> None:
    """Each event is one line of JSON between blank lines, and the last is `[DONE]`."""
    fleet = fleets.of(dialect)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6, "stream": True}

    async def test(_: AsyncOpenAI) -> None:
        process = await asyncio.create_subprocess_exec(
            *(CURL or "curl", "-sSN", "--fail", "-i", f"{fleet.base_url}/chat/completions"),
            *("-H", "content-type: application/json", "-d", json.dumps(body)),
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _stderr = await process.communicate()
        assert process.returncode == 0
        head, _blank, stream = printed.decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert "content-type: text/event-stream" in head
        events = stream.split("\n\n")
        assert events[-1] == ""
        assert events[-2] == "data: [DONE]"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        assert all("\n" not in event for event in events)
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"

    fleets.run(test, dialect)
