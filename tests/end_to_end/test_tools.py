"""Tools through the router: offered, forbidden, demanded and named; whole calls, streamed calls, and the answer
that follows a tool's result.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI

from tests.support.clients import DIALECTS, StandingFleets, dialect_of, say, standing_fleets

QUESTION = [{"role": "user", "content": "How is the weather in Paris?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "time"}}
NAMED = {"type": "function", "function": {"name": "weather"}}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

TEXT, CALL = "text", "call"

# fmt: off
TABLE = [
    # tool_choice          vLLM  trtllm                  TGI   Triton
    (None,                 TEXT, TEXT,                   TEXT, "tools"),
    ("auto",               TEXT, TEXT,                   TEXT, "tools"),
    ("none",               TEXT, TEXT,                   TEXT, "tools"),
    ("required",           CALL, "tool_choice_required", CALL, "tool_choice_required, tools"),
    (NAMED,                CALL, CALL,                   CALL, "tools"),
]
# fmt: on
"""`text` or `call`: what the simulated engine makes of it; else the features that a 501 names as missing."""
CELLS = [
    pytest.param(
        choice, dialect, cell, id=f"{choice if isinstance(choice, str | None) else 'named'}-{dialect}"
    )
    for choice, *cells in TABLE
    for dialect, cell in zip(DIALECTS, cells, strict=True)
]
CALLERS = [(dialect, choice) for choice, *cells in TABLE for dialect, cell in zip(DIALECTS, cells, strict=True)
           if cell == CALL]  # fmt: skip


@pytest.fixture(scope="module")
def fleets() -> Iterator[StandingFleets]:
    with standing_fleets() as fleets:
        yield fleets


def wish_of(choice: Any, **more: Any) -> dict[str, Any]:
    asked = {"messages": QUESTION, "tools": [WEATHER, TIME], "max_tokens": 64}
    return asked | ({} if choice is None else {"tool_choice": choice}) | more


@pytest.mark.parametrize(("choice", "dialect", "cell"), CELLS)
def test_tool_choice(fleets: StandingFleets, choice: Any, dialect: str, cell: str) -> None:
    """Text or one call, equal with and without a stream; or a refusal that names what the engine lacks."""

    async def test(client: AsyncOpenAI) -> None:
        if cell not in (TEXT, CALL):
            with pytest.raises(APIStatusError) as raised:
                await say(client, wish_of(choice))
            assert (raised.value.status_code, raised.value.code) == (501, "endpoint_not_supported")
            assert f"it needs {cell}, which" in raised.value.message
            return
        for said in (await say(client, wish_of(choice)), await say(client, wish_of(choice), **USAGE)):
            (answer,) = said.choices
            if cell == TEXT:
                assert answer.text
                assert not answer.calls
                assert answer.finish_reason in ("stop", "length")
            else:
                ((name, arguments, call_id),) = answer.calls.values()
                assert (name, json.loads(arguments)) == ("weather", {"city": "text"})
                assert call_id
                assert not answer.text
                # A named call ends with `stop` at OpenAI and vLLM, with `tool_calls` where engines do not say.
                assert answer.finish_reason in ({"stop", "tool_calls"} if choice is NAMED else {"tool_calls"})
            assert said.usage is not None

    fleets.run(test, dialect)


@pytest.mark.parametrize(("dialect", "choice"), CALLERS)
def test_the_clients_own_stream_helper_joins_a_call(
    fleets: StandingFleets, dialect: str, choice: Any
) -> None:
    """It concatenates every string that comes twice, so a repeated id or name would show."""

    async def test(client: AsyncOpenAI) -> None:
        whole = await say(client, wish_of(choice))
        async with client.chat.completions.stream(model="m", **wish_of(choice)) as stream:
            completion = await stream.get_final_completion()
        (call,) = completion.choices[0].message.tool_calls or []
        name, arguments, _ = whole.choices[0].calls[0]
        assert (call.function.name, json.loads(call.function.arguments)) == (name, json.loads(arguments))
        assert call.id
        assert call.type == "function"

    fleets.run(test, dialect)


@pytest.mark.parametrize("dialect", ["vllm", "trtllm", "tgi"])
def test_a_tools_result_is_answered(fleets: StandingFleets, dialect: str) -> None:
    """The whole round: a call, its result under the call's id, and a text."""

    async def test(client: AsyncOpenAI) -> None:
        called = await client.chat.completions.create(model="m", **wish_of(NAMED))
        message = called.choices[0].message.model_dump(exclude_unset=True)
        (call,) = message["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": '{"weather": "rain"}'}
        wish = wish_of("auto", messages=[*QUESTION, message, result], max_tokens=8)
        whole = await say(client, wish)
        assert whole.text
        assert (await say(client, wish, **USAGE)).without_ids() == whole.without_ids()

    fleets.run(test, dialect)


@pytest.mark.parametrize("dialect", ["vllm", "trtllm", "tgi"])
def test_a_call_that_is_cut_ends_with_length(fleets: StandingFleets, dialect: str) -> None:
    """However little of it came: a limit that was reached is no broken answer."""

    async def test(client: AsyncOpenAI) -> None:
        for limit in (1, 3):
            said = await say(client, wish_of(NAMED, max_tokens=limit), **USAGE)
            assert said.choices[0].finish_reason == "length"
            assert said.usage is not None
            assert said.usage[1] == limit

    fleets.run(test, dialect)


@pytest.mark.parametrize(
    ("choice", "able"), [("auto", {"vllm", "trtllm", "tgi"}), ("required", {"vllm", "tgi"})]
)
def test_in_a_pool_tools_go_where_they_are_known(fleets: StandingFleets, choice: str, able: set[str]) -> None:
    """Every replica that can do it does it in turn, and no other is asked."""
    fleet = fleets.of(*DIALECTS)

    async def test(client: AsyncOpenAI) -> None:
        answers = [await say(client, wish_of(choice, max_tokens=64), **USAGE) for _ in range(2 * len(able))]
        assert {dialect_of(fleet, said.replica) for said in answers} == able

    fleets.run(test, *DIALECTS)
