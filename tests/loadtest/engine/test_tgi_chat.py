"""TGI's tools, templates and grammars on real sockets."""

import asyncio
import json
from typing import Any

from tests.support.engine_client import Reply, engine, post

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 6, "temperature": 0}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def words(reply: Reply) -> str:
    """The text of a chat stream."""
    return "".join(
        event["choices"][0]["delta"].get("content", "") for event in reply.events() if event["choices"]
    )


def reasons(reply: Reply) -> list[str | None]:
    return [event["choices"][0]["finish_reason"] for event in reply.events() if event.get("choices")]


def test_tools() -> None:
    """A call comes as deltas without any finish reason, or whole with `stop`: never `tool_calls`."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            asked = {**CHAT, "max_tokens": 100, "tools": [WEATHER], "tool_choice": "required"}
            reply = await post(tgi, "/v1/chat/completions", {**asked, "stream": True})
            calls = [event["choices"][0]["delta"]["tool_calls"][0] for event in reply.events()]
            assert {(call["index"], call["id"], call["type"]) for call in calls} == {(0, "0", "function")}
            assert [call["function"]["name"] for call in calls] == ["get_weather"] + [None] * (len(calls) - 1)
            arguments = "".join(call["function"]["arguments"] for call in calls)
            assert json.loads(arguments).keys() == {"city"}
            assert set(reasons(reply)) == {None}
            assert reply.chunks[-1] == b"data: [DONE]\n\n"
            choice = (await post(tgi, "/v1/chat/completions", asked)).json()["choices"][0]
            assert choice["finish_reason"] == "stop"
            assert "content" not in choice["message"]
            (call_,) = choice["message"]["tool_calls"]
            assert call_["function"] == {"description": None, "name": "get_weather", "arguments": arguments}
            named = {**asked, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
            assert (await post(tgi, "/v1/chat/completions", named)).json()["choices"][0]["message"][
                "tool_calls"
            ]

    asyncio.run(run())


def test_the_arguments_of_a_streamed_call_are_json_whatever_the_name() -> None:
    """How the text before them happens to fall into tokens does not show."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            for length in range(1, 7):
                tool = {"type": "function", "function": {**WEATHER["function"], "name": "f" * length}}
                asked = {
                    **CHAT,
                    "max_tokens": 100,
                    "tools": [tool],
                    "tool_choice": "required",
                    "stream": True,
                }
                events = (await post(tgi, "/v1/chat/completions", asked)).events()
                calls = [event["choices"][0]["delta"]["tool_calls"][0]["function"] for event in events]
                assert calls[0]["name"] == "f" * length
                assert json.loads("".join(call["arguments"] for call in calls)).keys() == {"city"}

    asyncio.run(run())


def test_choosing_no_tool_costs_a_second_generation() -> None:
    """Free to choose, the model writes `no_tool` unseen, and then the answer."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            plain = await post(tgi, "/v1/chat/completions", {**CHAT, "stream": True})
            before = sum(tgi.core.stats().finished.values())
            reply = await post(tgi, "/v1/chat/completions", {**CHAT, "tools": [WEATHER], "stream": True})
            assert words(reply) == words(plain)
            assert sum(tgi.core.stats().finished.values()) == before + 2
        async with engine("tgi", extra={"auto_calls": True}) as tgi:
            reply = await post(tgi, "/v1/chat/completions", {**CHAT, "max_tokens": 100, "tools": [WEATHER]})
            assert reply.json()["choices"][0]["message"]["tool_calls"]

    asyncio.run(run())


def test_tool_and_template_errors_keep_their_status() -> None:
    """They are found before the stream begins."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            for fields, kind in (
                ({"tools": [WEATHER], "tool_choice": "nothing"}, "tool_error"),
                ({"tools": [WEATHER], "response_format": {"type": "regex", "value": "a"}}, "tool_error"),
                ({"messages": []}, "template_error"),
            ):
                reply = await post(tgi, "/v1/chat/completions", {**CHAT, **fields, "stream": True})
                assert (reply.status, reply.json()["error_type"]) == (422, kind)

    asyncio.run(run())


def test_grammars() -> None:
    """A schema in TGI's own spelling is obeyed."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
            asked = {**CHAT, "max_tokens": 100, "response_format": {"type": "json_object", "value": schema}}
            answer = (await post(tgi, "/v1/chat/completions", asked)).json()
            assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["n"], int)

    asyncio.run(run())


def test_an_open_assistant_message_is_continued() -> None:
    """A stream that broke goes on elsewhere as if it had not: the template leaves the last message open."""

    async def run() -> None:
        async with engine("tgi") as tgi, engine("tgi") as other:
            asked = {**CHAT, "max_tokens": 12}
            whole = (await post(tgi, "/v1/chat/completions", asked)).json()["choices"][0]["message"][
                "content"
            ]
            part = " ".join(whole.split(" ")[:5])
            messages = [*CHAT["messages"], {"role": "assistant", "content": part}]
            rest = await post(other, "/v1/chat/completions", {**asked, "messages": messages, "max_tokens": 8})
            assert part + rest.json()["choices"][0]["message"]["content"] == whole

    asyncio.run(run())
