"""trtllm-serve's `/v1/responses` on real sockets."""

import asyncio

from tests.support.engine_client import call, engine, get, post


def test_responses() -> None:
    """Text in, text out; kept for reading until deleted."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            asked = {"model": "m", "input": "Hi!", "max_output_tokens": 6, "temperature": 0}
            answer = (await post(trtllm, "/v1/responses", asked)).json()
            assert answer["status"] == "incomplete"
            assert answer["usage"]["output_tokens"] == 6
            path = f"/v1/responses/{answer['id']}"
            assert (await get(trtllm, path)).json() == answer
            assert (await call(trtllm, "DELETE", path, b"", {})).json()["deleted"] is True
            assert (await get(trtllm, path)).status == 404
            assert (await get(trtllm, "/v1/responses/other")).status == 400
            as_messages = {**asked, "input": [{"role": "user", "content": "Hi!"}], "stream": True}
            stream = await post(trtllm, "/v1/responses", as_messages)
            events = stream.events()
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
            text = answer["output"][0]["content"][0]["text"]
            assert "".join(deltas) == text
            assert events[-1]["type"] == "response.incomplete"
            assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
            assert (await post(trtllm, "/v1/responses", {**asked, "unknown": 1})).status == 400
            assert (await post(trtllm, "/v1/responses", {**asked, "max_output_tokens": 10**6})).status == 400

    asyncio.run(run())
