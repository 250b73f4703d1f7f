import asyncio
import json
from typing import Any

from openai import AsyncOpenAI

from tests.support.engine_client import engine, post


def named_events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and value of every event."""
    blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_whole_and_streamed_response() -> None:
    """Events in their order and numbered, deltas that add up to the whole answer, no `[DONE]`."""

    async def main() -> None:
        async with engine("vllm") as running:
            body = {"input": "Hi", "instructions": "Be brief.", "max_output_tokens": 4, "temperature": 0}
            whole = (await post(running, "/v1/responses", body)).json()
            text = whole["output"][0]["content"][0]["text"]
            assert (whole["status"], whole["incomplete_details"]) == (
                "incomplete",
                {"reason": "max_output_tokens"},
            )
            assert whole["usage"]["output_tokens"] == 4
            stream = await post(running, "/v1/responses", {**body, "stream": True})
            events = named_events(stream.text)
            names = [name for name, _ in events]
            assert names[:4] == [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
            ]
            assert set(names[4:-4]) == {"response.output_text.delta"}
            assert names[-4:] == [
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ]
            assert [value["sequence_number"] for _, value in events] == list(range(len(events)))
            assert all(value["type"] == name for name, value in events)
            assert "".join(value.get("delta", "") for _, value in events) == text
            last = events[-1][1]["response"]
            assert last["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
            assert last["usage"]["input_tokens_details"]["cached_tokens"] == 16

    asyncio.run(main())


def test_input_items_and_formats() -> None:
    """Turns with parts are a chat; a schema in `text.format` guides the answer; nothing is stored."""

    async def main() -> None:
        async with engine("vllm") as running:
            turns = [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
            wanted = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
            reply = (await post(running, "/v1/responses", {"input": turns, "text": wanted})).json()
            assert json.loads(reply["output"][0]["content"][0]["text"]) == {"n": 0}
            assert reply["status"] == "completed"
            for bad in ({"input": "x", "previous_response_id": "r"}, {"input": "x", "background": True}, {}):
                assert (await post(running, "/v1/responses", bad)).status == 400
            assert (await post(running, "/v1/responses", {"input": "x", "model": "nope"})).status == 404

    asyncio.run(main())


def test_openais_own_client_reads_it() -> None:
    """Chat, completions, embeddings and responses, streamed and not, through the official client."""

    async def main() -> None:
        async with (
            engine("vllm") as running,
            AsyncOpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0) as client,
        ):
            chat = await client.chat.completions.create(
                model="demo-8b", messages=[{"role": "user", "content": "Hi"}], temperature=0
            )
            stream = await client.chat.completions.create(
                model="demo-8b", messages=[{"role": "user", "content": "Hi"}], temperature=0, stream=True
            )
            said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert said == chat.choices[0].message.content
            whole = await client.responses.create(model="demo-8b", input="Hi", max_output_tokens=3)
            async with client.responses.stream(model="demo-8b", input="Hi", max_output_tokens=3) as events:
                kinds = [event.type async for event in events]
            assert whole.output_text and kinds.count("response.output_text.delta") == 3
            vectors = await client.embeddings.create(model="demo-8b", input=["a", "b"])
            assert len(vectors.data[0].embedding) == 64

    asyncio.run(main())
