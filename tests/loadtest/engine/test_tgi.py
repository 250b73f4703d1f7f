"""The TGI dialect on real sockets: answers, streams, and everything that is said with status 200."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.support.engine_client import Reply, call, engine, get, opened, post, read_chunk, until

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "tgi"
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


def test_every_route_is_there() -> None:
    """The golden list of paths, and the key guards exactly those that it says."""

    async def run() -> None:
        routes = json.loads((FIXTURES / "paths.json").read_bytes())["routes"]
        async with engine("tgi", api_key="Secret") as tgi:
            for method, path, access in routes:
                reply = await call(tgi, method, path, b"", {})
                assert (reply.status == 401) == (access == "api key"), path
                assert reply.status not in (404, 405), path
            refused = await post(tgi, "/generate", {"inputs": "a"}, {"authorization": "Bearer wrong"})
            assert (refused.status, refused.body) == (401, b"")
            asked = {"inputs": "a", "parameters": {"max_new_tokens": 1}}
            assert (await post(tgi, "/generate", asked, {"authorization": "bearer SECRET"})).status == 200
            assert (await get(tgi, "/nowhere")).status == 404
            assert (await get(tgi, "/generate")).status == 405

    asyncio.run(run())


def test_information() -> None:
    """`/info` and the model list; neither tells the KV capacity."""

    async def run() -> None:
        async with engine("tgi", model="org/model", max_model_len=4096) as tgi:
            info = (await get(tgi, "/info")).json()
            assert list(info)[:4] == [
                "model_id",
                "model_sha",
                "model_pipeline_tag",
                "max_concurrent_requests",
            ]
            assert (info["max_input_tokens"], info["max_total_tokens"]) == (4095, 4096)
            assert info["router"] == "text-generation-router"
            model = {"id": "org/model", "object": "model", "created": 0, "owned_by": "org/model"}
            assert (await get(tgi, "/v1/models")).json() == {"object": "list", "data": [model]}
            for path in ("/", "/health", "/ping"):
                assert ((await get(tgi, path)).status, (await get(tgi, path)).body) == (200, b"")

    asyncio.run(run())


def test_tokenizer_routes() -> None:
    """Ids with byte offsets; the chat route renders the template too."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            tokens = (await post(tgi, "/tokenize", {"inputs": "Grüße!"})).json()
            assert tokens[-1]["stop"] == len("Grüße!".encode())
            assert [one["start"] for one in tokens[1:]] == [one["stop"] for one in tokens[:-1]]
            chat = (await post(tgi, "/chat_tokenize", CHAT)).json()
            assert chat["templated_text"].endswith("<|im_start|>assistant\n")
            usage = (await post(tgi, "/v1/chat/completions", CHAT)).json()["usage"]
            assert len(chat["tokenize_response"]) == usage["prompt_tokens"]

    asyncio.run(run())


def test_overload() -> None:
    """429 for a whole answer; in a stream 200, and 422 in the event."""

    async def run() -> None:
        async with engine("tgi", extra={"max_concurrent_requests": 1}) as tgi:
            tgi.core.stall()
            async with asyncio.TaskGroup() as group:
                busy = group.create_task(post(tgi, "/v1/chat/completions", CHAT))
                await until(lambda: tgi.core.stats().waiting)
                whole = await post(tgi, "/v1/chat/completions", CHAT)
                chat = await post(tgi, "/v1/chat/completions", {**CHAT, "stream": True})
                text = await post(tgi, "/v1/completions", {"prompt": "a", "stream": True})
                native = await post(tgi, "/generate_stream", {"inputs": "a"})
                tgi.core.resume()
                await busy
            assert (whole.status, whole.json()) == (
                429,
                {"error": "Model is overloaded", "error_type": "overloaded"},
            )
            overloaded = (FIXTURES / "chat_stream_overloaded_http200.sse").read_bytes()
            assert (chat.status, chat.body) == (200, overloaded)
            assert (text.status, text.body) == (200, overloaded)
            expected = (FIXTURES / "generate_stream_overloaded_http200.sse").read_bytes()
            assert (native.status, native.body) == (200, expected)
            assert b'tgi_request_failure{err="overloaded"} 4\n' in (await get(tgi, "/metrics")).body

    asyncio.run(run())


def test_validation() -> None:
    """Ranges are 422 for a whole answer and an event in a stream."""

    async def run() -> None:
        async with engine("tgi", max_model_len=512) as tgi:
            for fields, message in (
                ({"top_p": 1}, "`top_p` must be > 0.0 and < 1.0"),
                ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
                ({"max_tokens": 0}, "`max_new_tokens` must be strictly positive"),
                ({"presence_penalty": -2}, "`repetition_penalty` must be strictly positive"),
                ({"max_tokens": 510}, "`inputs` tokens + `max_new_tokens` must be <= 512. Given: "),
                ({"top_logprobs": 9}, "`top_n_tokens` must be >= 0 and <= 5. Given: 9"),
                (
                    {"response_format": {"type": "json_object", "value": {"type": "object"}}},
                    "grammar is not valid: Grammar must have a 'properties' field",
                ),
            ):
                whole = await post(tgi, "/v1/chat/completions", {**CHAT, **fields})
                assert whole.status == 422
                assert whole.json()["error"].startswith(f"Input validation error: {message}")
                assert whole.json()["error_type"] == "validation"
                streamed = await post(tgi, "/v1/chat/completions", {**CHAT, **fields, "stream": True})
                assert streamed.status == 200
                (event,) = streamed.events()
                assert event["error"]["message"] == whole.json()["error"]
                assert event["error"]["http_status_code"] == 422
            too_long = {"inputs": "x" * 3000, "parameters": {"max_new_tokens": 1}}
            assert "must be <= 512" in (await post(tgi, "/generate", too_long)).json()["error"]

    asyncio.run(run())


def test_framework_refusals() -> None:
    """Plain text for types, media types, sizes and syntax."""

    async def run() -> None:
        async with engine("tgi", extra={"payload_limit": 2000}) as tgi:
            path = "/v1/chat/completions"
            for body, headers, status in (
                ({**CHAT, "stop": "x"}, {}, 422),
                ({**CHAT, "stream_options": None}, {}, 422),
                ({**CHAT, "logit_bias": {"1": 1}}, {}, 422),
                (b"{", {}, 400),
                (CHAT, {"content-type": "text/plain"}, 415),
                ({**CHAT, "user": "x" * 2000}, {}, 413),
            ):
                reply = await post(tgi, path, body, headers)
                assert (reply.status, reply.headers["content-type"]) == (status, "text/plain; charset=utf-8")
                assert reply.body

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


def test_framing_before_2_1() -> None:
    """No space after `data:`, and raw finish words."""

    async def run() -> None:
        async with engine("tgi", extra={"framing": "pre2.1"}) as tgi:
            reply = await post(tgi, "/v1/chat/completions", {**CHAT, "max_tokens": 2000, "stream": True})
            assert reply.chunks[0].startswith(b'data:{"object"')
            assert reply.chunks[-1] == b"data:[DONE]\n\n"
            assert reasons(reply)[-1] == "eos_token"

    asyncio.run(run())


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


def test_only_finished_prompts_are_cached() -> None:
    """Two equal prompts at once do not share; a later one finds the prompt, but not the answer."""

    async def run() -> None:
        async with engine("tgi", block_size=1, num_blocks=20_000) as tgi:
            asked = {"inputs": "x" * 300, "parameters": {"max_new_tokens": 4}}
            first, second = await asyncio.gather(*(post(tgi, "/generate", asked) for _ in range(2)))
            assert first.json() == second.json()
            assert tgi.core.stats().prefix_hit_tokens == 0
            longer = {**asked, "inputs": asked["inputs"] + first.json()["generated_text"]}
            await post(tgi, "/generate", longer)
            assert tgi.core.stats().prefix_hit_tokens == 100
            whole = {"prompt": asked["inputs"], "max_tokens": 2}
            await post(tgi, "/v1/completions", whole)
            assert tgi.core.stats().prefix_hit_tokens == 100
            await post(tgi, "/v1/completions", {**whole, "stream": True})
            assert tgi.core.stats().prefix_hit_tokens == 199

    asyncio.run(run())


def test_metrics_appear_with_use() -> None:
    """A fresh replica shows nothing; chat is counted twice; nothing ends in `_total`."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            assert (await get(tgi, "/metrics")).body == b""
            await post(tgi, "/v1/chat/completions", CHAT)
            await post(tgi, "/generate", {"inputs": "a", "parameters": {"max_new_tokens": 2}})
            text = (await get(tgi, "/metrics")).text
            lines = text.splitlines()
            assert "tgi_request_count 3" in lines
            assert "tgi_request_success 2" in lines
            assert "tgi_request_generated_tokens_sum 8" in lines
            assert "tgi_queue_size 0" in lines
            assert "tgi_batch_current_size 0" in lines
            assert 'tgi_batch_inference_count{method="prefill"} 2' in lines
            assert "_total" not in text
            assert text.count("tgi_batch_next_size_bucket") == 1025
            assert "\n\n# " in text

    asyncio.run(run())


def test_a_client_that_leaves_is_noticed_at_the_next_token() -> None:
    """The generation ends, and the request counts as dropped."""

    async def run() -> None:
        async with engine("tgi", speed=20.0) as tgi:
            headers = {"content-type": "application/json"}
            async with opened(tgi, "POST", "/generate_stream", _endless(), headers) as (_, reader, __):
                assert await read_chunk(reader)
            await until(lambda: tgi.core.stats().running == 0)
            assert tgi.core.stats().finished["abort"] == 1
            assert tgi.log[0].noticed_s is not None
            assert b'tgi_request_failure{err="dropped"} 1\n' in (await get(tgi, "/metrics")).body

    asyncio.run(run())


def _endless() -> bytes:
    """A native request whose answer is as long as guided decoding makes it."""
    values = {"type": "array", "minItems": 900, "items": {"type": "string"}}
    grammar = {"type": "json", "value": {"type": "object", "properties": {"a": values}}}
    return json.dumps({"inputs": "a", "parameters": {"grammar": grammar}}).encode()


def test_scripted_errors() -> None:
    """A failing generation is an event and `[DONE]`, or 424; an abort is an incomplete generation."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            streamed = {**CHAT, "stream": True}
            broken = await post(tgi, "/v1/chat/completions", streamed, {"x-fault": "error@3"})
            assert len(broken.events()) == 4
            assert broken.events()[-1]["error"] == {
                "message": "Request failed during generation: Server error: Internal server error",
                "http_status_code": 422,
            }
            assert broken.chunks[-1] == b"data: [DONE]\n\n"
            whole = await post(tgi, "/v1/chat/completions", CHAT, {"x-fault": "error@3"})
            assert (whole.status, whole.json()["error_type"]) == (424, "generation")
            native = await post(tgi, "/generate_stream", {"inputs": "a"}, {"x-fault": "error@2"})
            assert native.events()[-1]["error_type"] == "generation"
            cut = await post(tgi, "/v1/chat/completions", CHAT, {"x-fault": "abort@2"})
            assert (cut.status, cut.json()) == (
                500,
                {"error": "Incomplete generation", "error_type": "incomplete_generation"},
            )
            cut = await post(tgi, "/v1/chat/completions", streamed, {"x-fault": "abort@2"})
            assert cut.events()[-1]["error"]["message"] == "Incomplete generation stream"
            status = await post(tgi, "/v1/chat/completions", CHAT, {"x-fault": "status=503"})
            assert (status.status, status.json()["error_type"]) == (503, "healthcheck")

    asyncio.run(run())


def test_health_is_doubted_after_a_failure() -> None:
    """The next call runs one token; a dead engine answers 503."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            await post(tgi, "/v1/chat/completions", CHAT, {"x-fault": "error@1"})
            steps = tgi.core.stats().steps
            assert (await get(tgi, "/health")).status == 200
            probed = tgi.core.stats().steps
            assert probed > steps
            assert (await get(tgi, "/health")).status == 200
            assert tgi.core.stats().steps == probed
            tgi.core.kill()
            dead = await get(tgi, "/health")
            assert (dead.status, dead.json()) == (503, {"error": "unhealthy", "error_type": "healthcheck"})
            refused = await post(tgi, "/v1/chat/completions", CHAT)
            assert (refused.status, refused.json()["error_type"]) == (424, "generation")

    asyncio.run(run())


def test_hosting_platforms_routes() -> None:
    """Their routes accept the same bodies under other paths."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            native = {"inputs": "a", "parameters": {"max_new_tokens": 2, "return_full_text": False}}
            assert (await post(tgi, "/invocations", native)).json() == (await post(tgi, "/", native)).json()
            chat = (await post(tgi, "/invocations", CHAT)).json()
            assert chat["object"] == "chat.completion"
            text = (await post(tgi, "/invocations", {"prompt": "a", "max_tokens": 2})).json()
            assert text["object"] == "text_completion"
            answer = (await post(tgi, "/vertex", {"instances": [native, CHAT]})).json()
            assert answer["predictions"][1] == chat["choices"][0]["message"]["content"]
            assert (await post(tgi, "/vertex", {"instances": []})).status == 422

    asyncio.run(run())
