"""TGI's answers and streams on real sockets, whatever the endpoint."""

import asyncio
import json
from typing import Any

from tests.support.engine_client import Reply, engine, opened, post, read_chunk

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 6, "temperature": 0}


def words(reply: Reply) -> str:
    """The text of a chat stream."""
    return "".join(
        event["choices"][0]["delta"].get("content", "") for event in reply.events() if event["choices"]
    )


def reasons(reply: Reply) -> list[str | None]:
    return [event["choices"][0]["finish_reason"] for event in reply.events() if event.get("choices")]


def test_chat_stream() -> None:
    """One chunk per token with role and empty id, the limit's word at the end, usage if asked, `[DONE]`."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
            reply = await post(tgi, "/v1/chat/completions", asked)
            assert reply.headers["content-type"] == "text/event-stream"
            assert reply.headers["x-accel-buffering"] == "no"
            assert reply.whole
            assert reply.chunks[-1] == b"data: [DONE]\n\n"
            *chunks, last = reply.events()
            assert len(chunks) == 6
            assert all(chunk["id"] == "" and chunk["usage"] is None for chunk in chunks)
            assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in chunks)
            assert reasons(reply) == [None] * 5 + ["length"]
            assert last["choices"] == []
            assert last["usage"]["completion_tokens"] == 6
            plain = await post(tgi, "/v1/chat/completions", {**CHAT, "stream": True})
            assert len(plain.events()) == 6

    asyncio.run(run())


def test_whole_chat() -> None:
    """The same text as streamed, and the timing headers that only whole answers carry."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            streamed = await post(tgi, "/v1/chat/completions", {**CHAT, "stream": True})
            whole = await post(tgi, "/v1/chat/completions", {**CHAT, "model": "tgi", "n": 3})
            answer = whole.json()
            assert len(answer["choices"]) == 1
            assert answer["choices"][0]["message"] == {"role": "assistant", "content": words(streamed)}
            assert answer["model"] == "demo-8b"
            assert {
                "x-queue-time",
                "x-inference-time",
                "x-total-time",
                "x-time-per-token",
            } <= whole.headers.keys()
            assert whole.headers["x-generated-tokens"] == "6"
            assert whole.headers["x-prompt-tokens"] == str(answer["usage"]["prompt_tokens"])
            named = await post(tgi, "/v1/chat/completions", {**CHAT, "model": "no-such-model"})
            assert named.json()["model"] == "no-such-model"

    asyncio.run(run())


def test_the_end_token_has_a_chunk_of_its_own() -> None:
    """A special token gives an empty text; chat says `stop`, raw completions `eos_token`."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            chat = await post(tgi, "/v1/chat/completions", {**CHAT, "max_tokens": 2000, "stream": True})
            last = chat.events()[-1]["choices"][0]
            assert (last["delta"]["content"], last["finish_reason"]) == ("", "stop")
            asked = {"prompt": "Once", "max_tokens": 2000, "temperature": 0}
            text = await post(tgi, "/v1/completions", {**asked, "stream": True})
            *chunks, final = text.events()
            assert {chunk["choices"][0]["finish_reason"] for chunk in chunks} == {""}
            assert final["choices"][0] == {
                "index": 0,
                "text": "",
                "logprobs": None,
                "finish_reason": "eos_token",
            }
            assert final["usage"]["completion_tokens"] == len(chunks) + 1
            whole = (await post(tgi, "/v1/completions", asked)).json()
            assert whole["choices"][0]["finish_reason"] == "stop"
            assert whole["choices"][0]["text"] == "".join(chunk["choices"][0]["text"] for chunk in chunks)

    asyncio.run(run())


def test_a_stop_string_has_a_word_of_its_own() -> None:
    """`stop_sequence`, which OpenAI does not know, and the string stays in the text."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            text = words(await post(tgi, "/v1/chat/completions", {**CHAT, "stream": True}))
            stop = text.split(" ")[3]
            reply = await post(tgi, "/v1/chat/completions", {**CHAT, "stop": [stop], "stream": True})
            assert reasons(reply)[-1] == "stop_sequence"
            assert words(reply).endswith(stop)

    asyncio.run(run())


def test_completions_of_several_prompts() -> None:
    """A one-element list is a prompt; several are a batch of up to four."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            asked = {"max_tokens": 3, "temperature": 0}
            one = (await post(tgi, "/v1/completions", {**asked, "prompt": ["a b"]})).json()
            same = (await post(tgi, "/v1/completions", {**asked, "prompt": "a b"})).json()
            assert one["choices"] == same["choices"]
            reply = await post(tgi, "/v1/completions", {**asked, "prompt": ["a", "b"]})
            assert [choice["index"] for choice in reply.json()["choices"]] == [0, 1]
            assert reply.headers["x-generated-tokens"] == "6"
            assert "x-compute-time" not in reply.headers
            streamed = await post(tgi, "/v1/completions", {**asked, "prompt": ["a", ""], "stream": True})
            assert (
                streamed.events()[0]["error"]["message"] == "Input validation error: `inputs` cannot be empty"
            )
            assert len(streamed.events()) == 4
            many = await post(tgi, "/v1/completions", {**asked, "prompt": list("abcde"), "stream": True})
            assert (many.status, many.json()["error_type"]) == (422, "batch size exceeded")
            suffix = await post(tgi, "/v1/completions", {**asked, "prompt": "a", "suffix": "b"})
            assert (suffix.status, suffix.json()["error_type"]) == (422, "suffix not supported")

    asyncio.run(run())


def test_native_routes() -> None:
    """`generate` and `/` answer alike; the stream has token ids, details only on request, and no `[DONE]`."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            parameters = {"max_new_tokens": 3}
            asked = {"inputs": "Tell me", "parameters": parameters}
            text = (await post(tgi, "/generate", asked)).json()
            assert text.keys() == {"generated_text"}
            assert (await post(tgi, "/", asked)).json() == [
                {"generated_text": "Tell me" + text["generated_text"]}
            ]
            plain = await post(tgi, "/generate_stream", asked)
            assert b"[DONE]" not in plain.body
            assert [event["index"] for event in plain.events()] == [1, 2, 3]
            assert plain.events()[-1]["generated_text"] == text["generated_text"]
            assert plain.events()[-1]["details"] is None
            detailed = {"inputs": "Tell me", "parameters": {**parameters, "details": True}, "stream": True}
            last = (await post(tgi, "/generate_stream", detailed)).events()[-1]
            assert last["details"]["finish_reason"] == "length"
            assert last["details"]["generated_tokens"] == 3
            assert (await post(tgi, "/", detailed)).events()[-1]["details"] == last["details"]
            details = (await post(tgi, "/generate", detailed)).json()["details"]
            assert [token["id"] for token in details["tokens"]] == [
                one["token"]["id"] for one in plain.events()
            ]

    asyncio.run(run())


def test_best_of() -> None:
    """Two texts are written, one is chosen; a stream cannot have it."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            parameters = {"best_of": 2, "do_sample": True, "max_new_tokens": 3, "details": True}
            asked = {"inputs": "Tell me", "parameters": parameters}
            answer = (await post(tgi, "/generate", asked)).json()
            (other,) = answer["details"]["best_of_sequences"]
            assert other["generated_text"] != answer["generated_text"]
            (event,) = (await post(tgi, "/generate_stream", asked)).events()
            assert event["error_type"] == "validation"

    asyncio.run(run())


def test_logprobs() -> None:
    """Each chunk has its token's, with as many alternatives as asked for."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            asked = {**CHAT, "logprobs": True, "top_logprobs": 2}
            streamed = await post(tgi, "/v1/chat/completions", {**asked, "stream": True})
            entries = [event["choices"][0]["logprobs"]["content"][0] for event in streamed.events()]
            assert [entry["token"] for entry in entries] == [
                event["choices"][0]["delta"]["content"] for event in streamed.events()
            ]
            assert {len(entry["top_logprobs"]) for entry in entries} == {2}
            whole = (await post(tgi, "/v1/chat/completions", asked)).json()
            assert whole["choices"][0]["logprobs"]["content"] == entries

    asyncio.run(run())


def test_framing_before_2_1() -> None:
    """No space after `data:`, and raw finish words."""

    async def run() -> None:
        async with engine("tgi", extra={"framing": "pre2.1"}) as tgi:
            reply = await post(tgi, "/v1/chat/completions", {**CHAT, "max_tokens": 2000, "stream": True})
            assert reply.chunks[0].startswith(b'data:{"object"')
            assert reply.chunks[-1] == b"data:[DONE]\n\n"
            assert reasons(reply)[-1] == "eos_token"

    asyncio.run(run())


def test_comments_while_the_engine_is_silent() -> None:
    """A comment and a blank line after each silence, before and between tokens."""

    async def run() -> None:
        async with engine("tgi", extra={"keep_alive_s": 0.03}) as tgi:
            tgi.core.stall()
            body = json.dumps({**CHAT, "stream": True}).encode()
            headers = {"content-type": "application/json"}
            async with opened(tgi, "POST", "/v1/chat/completions", body, headers) as (reply, reader, _):
                assert reply.status == 200
                assert [await read_chunk(reader) for _ in range(2)] == [b":\n\n"] * 2
                tgi.core.resume()
                chunk = await read_chunk(reader)
                while chunk == b":\n\n":
                    chunk = await read_chunk(reader)
                assert chunk is not None
                assert chunk.startswith(b"data: {")

    asyncio.run(run())
