import asyncio
import json
from typing import Any

import pytest

from loadtest.engine.server import RunningEngine
from loadtest.engine.tokens import encode
from tests.support.engine_client import Reply, call, engine, get, opened, post, read_chunk, until
from tests.support.wire import recorded

MESSAGES = [{"role": "user", "content": "Tell me about the sea."}]
CHAT = {"model": "demo-8b", "messages": MESSAGES, "temperature": 0, "ignore_eos": True, "max_tokens": 6}


def asked(path: str, body: object, headers: dict[str, str] | None = None, **options: Any) -> Reply:
    """The answer of a fresh replica."""

    async def main() -> Reply:
        async with engine("vllm", **options) as running:
            return await post(running, path, body, headers)

    return asyncio.run(main())


def in_turn(*requests: tuple[str, object], **options: Any) -> list[Reply]:
    """The answers of one replica to several requests."""

    async def main() -> list[Reply]:
        async with engine("vllm", **options) as running:
            return [
                await (get(running, path) if body is None else post(running, path, body))
                for path, body in requests
            ]

    return asyncio.run(main())


def text_of(reply: Reply) -> str:
    return "".join(
        event["choices"][0]["delta"].get("content") or "" for event in reply.events() if event.get("choices")
    )


def test_stream_and_whole_chat_say_the_same() -> None:
    """Equal requests give equal text, reason and usage, streamed or not."""
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    whole, stream = in_turn(("/v1/chat/completions", CHAT), ("/v1/chat/completions", {**CHAT, **usage}))
    answer, events = whole.json(), stream.events()
    assert answer["choices"][0]["message"]["content"] == text_of(stream)
    assert answer["choices"][0]["finish_reason"] == events[-2]["choices"][0]["finish_reason"] == "length"
    shown = {name: answer["usage"][name] for name in ("prompt_tokens", "total_tokens", "completion_tokens")}
    assert events[-1]["usage"] == shown
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert stream.chunks[-1] == b"data: [DONE]\n\n"


def test_request_id_makes_the_response_id() -> None:
    """`X-Request-Id` is in the id, and comes back as a header only if that is enabled."""
    reply = asked("/v1/chat/completions", CHAT, {"X-Request-Id": "req-42"})
    assert reply.json()["id"] == "chatcmpl-req-42" and "x-request-id" not in reply.headers
    reply = asked(
        "/v1/completions", {"prompt": "x"}, {"X-Request-Id": "r"}, extra={"enable_request_id_headers": True}
    )
    assert (reply.json()["id"], reply.headers["x-request-id"]) == ("cmpl-r", "r")


def test_continued_chat_meets_the_unbroken_stream() -> None:
    """By `continue_final_message` and by token ids, from every cut, on another replica."""

    async def main() -> None:
        async with engine("vllm") as first, engine("vllm") as second:
            body = {**CHAT, "max_tokens": 12, "stream": True, "return_token_ids": True}
            events = (await post(first, "/v1/chat/completions", body)).events()
            prompt_ids = events[0]["prompt_token_ids"]
            deltas = [event["choices"][0] for event in events[1:]]
            words = [delta["delta"]["content"] for delta in deltas]
            ids = [token for delta in deltas for token in delta["token_ids"]]
            for cut in range(1, 12):
                so_far = {"role": "assistant", "content": "".join(words[:cut])}
                chat = {
                    **CHAT,
                    "messages": [*MESSAGES, so_far],
                    "max_tokens": 12 - cut,
                    "add_generation_prompt": False,
                    "continue_final_message": True,
                }
                by_text = (await post(second, "/v1/chat/completions", chat)).json()
                assert by_text["choices"][0]["message"]["content"] == "".join(words[cut:])
                completion = {
                    "prompt": prompt_ids + ids[:cut],
                    "max_tokens": 12 - cut,
                    "ignore_eos": True,
                    "temperature": 0,
                }
                by_ids = (await post(second, "/v1/completions", completion)).json()
                assert by_ids["choices"][0]["text"] == "".join(words[cut:])

    asyncio.run(main())


def test_cached_tokens_are_told_only_with_the_flag() -> None:
    """The second equal prompt hits; usage says so if the server was told to."""
    twice = [("/v1/chat/completions", CHAT)] * 2
    silent = in_turn(*twice)[1].json()["usage"]
    assert silent["prompt_tokens_details"] is None
    first, second = in_turn(*twice, extra={"enable_prompt_tokens_details": True})
    counts = [reply.json()["usage"] for reply in (first, second)]
    hit = (counts[0]["prompt_tokens"] - 1) // 16 * 16
    assert counts[0]["prompt_tokens_details"]["cached_tokens"] == 0
    assert counts[0]["prompt_tokens_details"]["created_cache_tokens"] == hit
    assert counts[1]["prompt_tokens_details"]["cached_tokens"] == hit > 0
    old = in_turn(*twice, extra={"enable_prompt_tokens_details": True, "version": "0.27.0"})
    details = [reply.json()["usage"]["prompt_tokens_details"] for reply in old]
    assert details == [None, {"cached_tokens": hit}]


def test_continuous_usage() -> None:
    """Every chunk has the usage so far."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = asked("/v1/chat/completions", {**CHAT, "stream": True, "stream_options": options}).events()
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 2, 3, 4, 5, 6, 6]
    forced = asked(
        "/v1/completions", {"prompt": "x", "stream": True}, extra={"enable_force_include_usage": True}
    ).events()
    assert all("usage" in event for event in forced)


def test_several_choices() -> None:
    """Sampled choices differ and are told apart by index; usage counts the prompt once."""
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    body = {**CHAT, "n": 3, "temperature": 1}
    whole, stream = in_turn(("/v1/chat/completions", body), ("/v1/chat/completions", {**body, **usage}))
    choices = whole.json()["choices"]
    assert len({choice["message"]["content"] for choice in choices}) == 3
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    events = stream.events()
    assert [event["choices"][0]["index"] for event in events[:3]] == [0, 1, 2]
    for index in range(3):
        said = [one["choices"][0] for one in events[3:-1] if one["choices"][0]["index"] == index]
        assert "".join(one["delta"]["content"] for one in said) == choices[index]["message"]["content"]
    assert events[-1]["usage"]["completion_tokens"] == whole.json()["usage"]["completion_tokens"] == 18


def test_stop_strings() -> None:
    """One string or a list; the text ends before it and `stop_reason` names it."""
    plain = asked("/v1/chat/completions", CHAT).json()["choices"][0]["message"]["content"]
    word = plain.split()[3]
    for stop in (word, ["never said", word]):
        choice = asked("/v1/chat/completions", {**CHAT, "stop": stop}).json()["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", word)
        assert choice["message"]["content"] == plain[: plain.index(word)]


def test_natural_end() -> None:
    """Without a limit in the way the answer ends by itself."""
    body = {"messages": MESSAGES, "temperature": 0}
    choice = asked("/v1/chat/completions", body).json()["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)


def test_required_tool_call() -> None:
    """The call has valid arguments; a required call ends with `tool_calls`, a named one with `stop`."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    named = {"type": "function", "function": {"name": "weather"}}
    base = {"messages": MESSAGES, "tools": [tool]}
    for choice, reason in (("required", "tool_calls"), (named, "stop")):
        body = {**base, "tool_choice": choice}
        whole, stream = in_turn(
            ("/v1/chat/completions", body), ("/v1/chat/completions", {**body, "stream": True})
        )
        answer = whole.json()["choices"][0]
        (call_made,) = answer["message"]["tool_calls"]
        assert call_made["function"]["name"] == "weather"
        assert set(json.loads(call_made["function"]["arguments"])) == {"city"}
        assert answer["finish_reason"] == reason
        deltas = [event["choices"][0] for event in stream.events()[1:]]
        calls = [delta["delta"]["tool_calls"][0] for delta in deltas[:-1]]
        assert calls[0]["function"] == {"name": "weather"} and calls[0]["id"].startswith("chatcmpl-tool-")
        written = "".join(one["function"]["arguments"] for one in calls[1:])
        assert json.loads(written) == json.loads(call_made["function"]["arguments"])
        assert (deltas[-1]["delta"], deltas[-1]["finish_reason"]) == ({}, reason)


def test_json_schema() -> None:
    """The answer is a document of the schema."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    choice = asked("/v1/chat/completions", {"messages": MESSAGES, "response_format": wanted}).json()[
        "choices"
    ][0]
    assert json.loads(choice["message"]["content"]) == {"n": 3}
    assert choice["finish_reason"] == "stop"


def test_completions_of_all_prompt_forms() -> None:
    """Text and its ids give the same; several prompts give their choices in order."""
    ids = encode("Once upon")
    body = {"temperature": 0, "return_token_ids": True}
    text, tokens, both = in_turn(
        ("/v1/completions", {**body, "prompt": "Once upon"}),
        ("/v1/completions", {**body, "prompt": ids}),
        ("/v1/completions", {**body, "prompt": [ids, encode("Twice")], "n": 2}),
    )
    assert text.json()["choices"] == tokens.json()["choices"]
    assert text.json()["choices"][0]["prompt_token_ids"] == ids
    assert text.json()["usage"]["completion_tokens"] <= 16
    choices = both.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert choices[0]["text"] == choices[1]["text"] == text.json()["choices"][0]["text"] != choices[2]["text"]
    assert both.json()["usage"]["prompt_tokens"] == len(ids) + len(encode("Twice"))


def test_completions_echo_and_logprobs() -> None:
    """The prompt stands before the output, offsets count from its start."""
    body = {"prompt": "Once", "echo": True, "logprobs": 2, "max_tokens": 3, "ignore_eos": True}
    whole, stream = in_turn(("/v1/completions", body), ("/v1/completions", {**body, "stream": True}))
    choice = whole.json()["choices"][0]
    assert choice["text"].startswith("Once ")
    for offset, token in zip(choice["logprobs"]["text_offset"], choice["logprobs"]["tokens"], strict=True):
        assert choice["text"][offset:].startswith(token)
    events = [event["choices"][0] for event in stream.events()]
    assert "".join(event["text"] for event in events) == choice["text"]
    assert [event["logprobs"]["text_offset"][0] for event in events] == choice["logprobs"]["text_offset"]


def test_chat_logprobs_and_echo() -> None:
    """One entry per token with its alternatives; echo repeats the last message first."""
    body = {**CHAT, "logprobs": True, "top_logprobs": 2, "echo": True}
    choice = asked("/v1/chat/completions", body).json()["choices"][0]
    assert len(choice["logprobs"]["content"]) == 6
    assert all(len(entry["top_logprobs"]) == 2 for entry in choice["logprobs"]["content"])
    assert choice["message"]["content"].startswith("Tell me about the sea. ")
    assert text_of(asked("/v1/chat/completions", {**body, "stream": True})) == choice["message"]["content"]


def test_errors_of_older_versions_as_documented() -> None:
    """Unknown model, long context and a wrong key have the documented status and body."""
    documented = {entry["case"]: entry for entry in json.loads(recorded("vllm/errors.json"))}
    old = {"version": "0.27.0"}
    reply = asked("/v1/chat/completions", {**CHAT, "model": "nope"}, extra=old)
    assert (reply.status, reply.json()) == (404, documented["unknown model"]["body"])
    reply = asked("/v1/completions", {"prompt": [20] * 7681, "max_tokens": 512}, extra=old)
    assert (reply.status, reply.json()) == (400, documented["context too long"]["body"])
    reply = asked("/v1/chat/completions", CHAT, api_key="secret")
    assert (reply.status, reply.json()) == (401, documented["bad api key"]["body"])
    flat = {"version": "0.10.0", "flat_errors": True}
    reply = asked("/v1/chat/completions", {**CHAT, "model": "nope"}, extra=flat)
    assert reply.json() == documented["legacy flat shape, 0.10.0 and older"]["body"]


def test_the_key_guards_only_some_paths() -> None:
    """`/v1` and `/inference` need it; health, metrics and the tokenizer do not."""

    async def main() -> None:
        async with engine("vllm", api_key="secret") as running:
            right = {"Authorization": "Bearer secret"}
            assert (await post(running, "/v1/chat/completions", CHAT, right)).status == 200
            assert (await post(running, "/inference/v1/generate", {"token_ids": [20]})).status == 401
            assert (await get(running, "/v1/models")).status == 401
            assert (await get(running, "/metrics")).status == 200
            assert (await post(running, "/tokenize", {"prompt": "x"})).status == 200

    asyncio.run(main())


def test_models_and_adapters() -> None:
    """Served names and adapters are listed and can be asked for; adapters come and go, with plain text."""

    async def main() -> None:
        async with engine("vllm", aliases=("other",), loras=("first",)) as running:
            cards = (await get(running, "/v1/models")).json()["data"]
            assert [card["id"] for card in cards] == ["demo-8b", "other", "first"]
            assert [card["parent"] for card in cards] == [None, None, "demo-8b"]
            assert [card["max_model_len"] for card in cards] == [8192, 8192, None]
            assert {card["owned_by"] for card in cards} == {"vllm"}
            load = {"lora_name": "second", "lora_path": "/x"}
            reply = await post(running, "/v1/load_lora_adapter", load)
            assert reply.text == "Success: LoRA adapter 'second' added successfully."
            assert reply.headers["content-type"].startswith("text/plain")
            assert (await post(running, "/v1/chat/completions", {**CHAT, "model": "second"})).status == 200
            again = await post(running, "/v1/load_lora_adapter", load)
            assert (again.status, again.json()["error"]["type"]) == (400, "InvalidUserInput")
            gone = await post(running, "/v1/unload_lora_adapter", {"lora_name": "second"})
            assert gone.status == 200
            missing = await post(running, "/v1/unload_lora_adapter", {"lora_name": "second"})
            assert (missing.status, missing.json()["error"]["type"]) == (404, "NotFoundError")
            assert (await post(running, "/v1/chat/completions", {**CHAT, "model": "second"})).status == 404

    asyncio.run(main())


def test_adapters_have_their_own_cache() -> None:
    """A prompt cached for the base model is no hit for an adapter."""
    replies = in_turn(
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "model": "a"}),
        ("/v1/chat/completions", {**CHAT, "model": "a"}),
        loras=("a",),
        extra={"enable_prompt_tokens_details": True},
    )
    cached = [reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in replies]
    assert cached[:2] == [0, 0] and cached[2] > 0


def test_health_version_load_and_ping() -> None:
    """The small answers."""
    health, ping, version, load = in_turn(
        ("/health", None), ("/ping", {}), ("/version", None), ("/load", None)
    )
    assert (health.status, health.body, ping.status) == (200, b"", 200)
    assert (version.json(), load.json()) == ({"version": "0.32.0"}, {"server_load": 0})


def test_sleep_aborts_and_waits() -> None:
    """Running streams end with `abort`, health stays good, requests wait until it wakes."""

    async def main() -> None:
        async with engine("vllm", speed=2.0) as running:
            body = {**CHAT, "max_tokens": 5_000, "stream": True}
            stream = asyncio.create_task(post(running, "/v1/chat/completions", body))
            await until(lambda: running.core.stats().generation_tokens > 3)
            assert (await post(running, "/sleep?level=1&mode=abort")).status == 200
            ended = await stream
            assert ended.events()[-1]["choices"][0]["finish_reason"] == "abort"
            assert ended.chunks[-1] == b"data: [DONE]\n\n"
            assert (await get(running, "/is_sleeping")).json() == {"is_sleeping": True}
            assert (await get(running, "/health")).status == 200
            assert b'sleep_state="weights_offloaded"} 1.0' in (await get(running, "/metrics")).body
            waiting = asyncio.create_task(post(running, "/v1/chat/completions", CHAT))
            await until(lambda: running.core.stats().waiting == 1)
            await post(running, "/wake_up")
            assert (await waiting).status == 200
            assert (await post(running, "/sleep?level=7")).status == 400

    asyncio.run(main())


def test_pause_resume_and_abort_by_id() -> None:
    """The developer endpoints that stop and end requests."""

    async def main() -> None:
        async with engine("vllm", speed=2.0) as running:
            body, headers = {**CHAT, "max_tokens": 5_000}, {"X-Request-Id": "one"}
            waiting = asyncio.create_task(post(running, "/v1/chat/completions", body, headers))
            await until(lambda: running.core.stats().running == 1)
            await post(running, "/pause?mode=keep")
            assert (await get(running, "/is_paused")).json() == {"is_paused": True}
            await post(running, "/resume")
            assert (await get(running, "/is_paused")).json() == {"is_paused": False}
            await post(running, "/abort_requests", {"request_ids": ["chatcmpl-one", "unknown"]})
            assert (await waiting).json()["choices"][0]["finish_reason"] == "abort"
            assert (await post(running, "/reset_prefix_cache")).json() == {"success": True}

    asyncio.run(main())


def test_developer_and_adapter_endpoints_can_be_off() -> None:
    """As without the variables that enable them."""
    replies = in_turn(
        ("/sleep", {}), ("/v1/load_lora_adapter", {}), extra={"dev_mode": False, "runtime_lora": False}
    )
    assert [reply.status for reply in replies] == [404, 404]


@pytest.mark.parametrize(("rank", "status"), [("0", 200), ("1", 200), ("2", 400), ("x", 400)])
def test_data_parallel_rank(rank: str, status: int) -> None:
    """A rank that does not exist is refused."""
    headers = {"X-data-parallel-rank": rank}
    assert asked("/v1/chat/completions", CHAT, headers, extra={"data_parallel_size": 2}).status == status


def test_orca_header() -> None:
    """On whole answers only, in the asked format."""

    async def main() -> None:
        async with engine("vllm") as running:
            text = await post(running, "/v1/chat/completions", CHAT, {"endpoint-load-metrics-format": "TEXT"})
            assert text.headers["endpoint-load-metrics"].startswith(
                "TEXT named_metrics.num_requests_waiting="
            )
            value = await post(
                running, "/v1/completions", {"prompt": "x"}, {"endpoint-load-metrics-format": "JSON"}
            )
            named = json.loads(value.headers["endpoint-load-metrics"].removeprefix("JSON "))["named_metrics"]
            assert set(named) == {"kv_cache_usage_perc", "num_requests_waiting"}
            body = {**CHAT, "stream": True}
            stream = await post(
                running, "/v1/chat/completions", body, {"endpoint-load-metrics-format": "TEXT"}
            )
            assert "endpoint-load-metrics" not in stream.headers

    asyncio.run(main())


def test_the_stream_head_comes_before_the_first_token() -> None:
    """A 200 says nothing about the engine: it is there while the engine hangs."""

    async def main() -> None:
        async with engine("vllm") as running:
            running.faults.set("stall")
            content = json.dumps({**CHAT, "stream": True}).encode()
            headers = {"content-type": "application/json"}
            async with opened(running, "POST", "/v1/chat/completions", content, headers) as (
                reply,
                reader,
                _,
            ):
                assert reply.status == 200
                running.faults.clear()
                assert await read_chunk(reader)

    asyncio.run(main())


def test_priority_by_body_and_header() -> None:
    """Under priority scheduling the more urgent request overtakes; the header wins over the body."""

    async def first_done(urgent: dict[str, Any], headers: dict[str, str]) -> str:
        async with engine("vllm", scheduling="priority", max_num_seqs=1) as running:
            running.core.stall()
            order: list[str] = []

            async def ask(name: str, more: dict[str, Any], headers: dict[str, str]) -> None:
                await post(running, "/v1/chat/completions", {**CHAT, **more}, headers)
                order.append(name)

            plain = asyncio.create_task(ask("plain", {}, {}))
            await until(lambda: running.core.stats().waiting == 1)
            hurried = asyncio.create_task(ask("urgent", urgent, headers))
            await until(lambda: running.core.stats().waiting == 2)
            running.core.resume()
            await asyncio.gather(plain, hurried)
            return order[0]

    assert asyncio.run(first_done({"priority": -1}, {})) == "urgent"
    assert asyncio.run(first_done({}, {"X-Vllm-Priority": "-1"})) == "urgent"
    assert asyncio.run(first_done({"priority": 1}, {})) == "plain"


def test_loading_refuses_connections() -> None:
    """A replica that does not listen yet is refused, not answered."""

    async def main() -> None:
        async with engine("vllm") as running:
            running.stop_listening()
            with pytest.raises(ConnectionRefusedError):
                await get(running, "/health")
            await running.listen()
            assert (await get(running, "/health")).status == 200

    asyncio.run(main())


async def _method(running: RunningEngine, method: str) -> int:
    return (await call(running, method, "/v1/models", b"", {})).status


def test_methods() -> None:
    """Only the documented ones."""

    async def main() -> None:
        async with engine("vllm") as running:
            assert [await _method(running, method) for method in ("GET", "POST", "DELETE")] == [200, 405, 405]

    asyncio.run(main())
