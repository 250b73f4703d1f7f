import asyncio
import json
from typing import Any

from tests.support.engine_client import engine, post

BODY = {
    "model": "demo-8b",
    "max_tokens": 4,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Hi"}],
}
TOOL = {
    "name": "weather",
    "description": "d",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def named_events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_whole_and_streamed_message() -> None:
    """One text block, Anthropic's stop reasons, named events that add up to the whole."""

    async def main() -> None:
        async with engine("vllm") as running:
            whole = (await post(running, "/v1/messages", {**BODY, "system": "Be kind."})).json()
            assert (whole["type"], whole["role"], whole["stop_reason"]) == (
                "message",
                "assistant",
                "max_tokens",
            )
            assert whole["usage"]["output_tokens"] == 4
            stream = await post(running, "/v1/messages", {**BODY, "system": "Be kind.", "stream": True})
            events = named_events(stream.text)
            assert [name for name, _ in events] == [
                "message_start",
                "content_block_start",
                *["content_block_delta"] * 4,
                "content_block_stop",
                "message_delta",
                "message_stop",
            ]
            assert (
                "".join(value["delta"].get("text", "") for _, value in events if "delta" in value)
                == (whole["content"][0]["text"])
            )
            assert events[-2][1]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
            assert events[-2][1]["usage"] == whole["usage"]

    asyncio.run(main())


def test_same_prompt_as_chat() -> None:
    """Underneath it is a chat: equal turns give equal text."""

    async def main() -> None:
        async with engine("vllm") as running:
            message = (await post(running, "/v1/messages", BODY)).json()
            chat = (await post(running, "/v1/chat/completions", BODY)).json()
            assert message["content"][0]["text"] == chat["choices"][0]["message"]["content"]
            count = (await post(running, "/v1/messages/count_tokens", BODY)).json()
            assert count["input_tokens"] == chat["usage"]["prompt_tokens"]

    asyncio.run(main())


def test_tool_use() -> None:
    """`any` makes a call whose input is an object, streamed as partial JSON."""

    async def main() -> None:
        async with engine("vllm") as running:
            body = {**BODY, "max_tokens": 99, "tools": [TOOL], "tool_choice": {"type": "any"}}
            whole = (await post(running, "/v1/messages", body)).json()
            (block,) = whole["content"]
            assert (block["type"], block["name"], whole["stop_reason"]) == ("tool_use", "weather", "tool_use")
            assert set(block["input"]) == {"city"}
            events = named_events((await post(running, "/v1/messages", {**body, "stream": True})).text)
            pieces = [value["delta"].get("partial_json", "") for _, value in events if "delta" in value]
            assert json.loads("".join(pieces)) == block["input"]

    asyncio.run(main())


def test_errors_in_anthropics_shape() -> None:
    """Whole errors and errors inside the stream."""

    async def main() -> None:
        async with engine("vllm") as running:
            reply = await post(running, "/v1/messages", {**BODY, "model": "nope"})
            assert (reply.status, reply.json()["type"]) == (404, "error")
            assert reply.json()["error"]["type"] == "NotFoundError"
            broken = await post(running, "/v1/messages", {**BODY, "stream": True}, {"x-fault": "error@2"})
            assert named_events(broken.text)[-1] == (
                "error",
                {"type": "error", "error": {"type": "internal_error", "message": "Internal server error"}},
            )

    asyncio.run(main())
