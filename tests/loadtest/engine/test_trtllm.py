"""The trtllm-serve dialect on real sockets: closed fields, broken streams, readings that take out."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.engine.tokens import encode
from loadtest.engine.trtllm_events_wire import block_key
from tests.support.engine_client import Reply, call, engine, get, opened, post, read_chunk, until

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "trtllm"
CHAT: dict[str, Any] = {
    "model": "anything",
    "messages": [{"role": "user", "content": "Hi!"}],
    "max_tokens": 6,
    "temperature": 0,
    "ignore_eos": True,
}
TEXT: dict[str, Any] = {
    "model": "anything",
    "prompt": "Hi!",
    "max_tokens": 6,
    "temperature": 0,
    "ignore_eos": True,
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def words(reply: Reply) -> str:
    """The text of a chat stream."""
    choices = [event["choices"][0] for event in reply.events() if event["choices"]]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def test_chat_stream() -> None:
    """A role chunk with a space behind it, keys that are missing instead of null, one id, `[DONE]`."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            reply = await post(trtllm, "/v1/chat/completions", {**CHAT, "stream": True})
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert reply.headers["server"] == "uvicorn"
            assert reply.whole
            assert reply.chunks[0].endswith(b'"delta":{"role":"assistant"}}]} \n\n')
            assert all(chunk.endswith(b"}\n\n") for chunk in reply.chunks[1:-1])
            assert reply.chunks[-1] == b"data: [DONE]\n\n"
            role, *chunks = reply.events()
            assert role["choices"] == [{"index": 0, "delta": {"role": "assistant"}}]
            assert len(chunks) == 6
            assert all(chunk["choices"][0].keys() == {"index", "delta"} for chunk in chunks[:-1])
            assert chunks[-1]["choices"][0]["finish_reason"] == "length"
            assert {chunk["id"] for chunk in reply.events()} == {role["id"]}
            assert role["model"] == "anything"
            assert not any("usage" in chunk for chunk in reply.events())

    asyncio.run(run())


def test_stream_options_switch_usage_on() -> None:
    """An empty object is enough; cached tokens are always in it."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            asked = {**CHAT, "messages": [{"role": "user", "content": "x" * 300}], "stream": True}
            for cached in (0, 96):
                reply = await post(trtllm, "/v1/chat/completions", {**asked, "stream_options": {}})
                last = reply.events()[-1]
                assert last["choices"] == []
                assert last["usage"]["completion_tokens"] == 6
                assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": cached}
            options = {"continuous_usage_stats": True}
            reply = await post(trtllm, "/v1/chat/completions", {**asked, "stream_options": options})
            assert [event["usage"]["completion_tokens"] for event in reply.events()] == [
                0,
                1,
                2,
                3,
                4,
                5,
                6,
                6,
            ]
            text = await post(trtllm, "/v1/completions", {**TEXT, "stream": True, "stream_options": {}})
            assert text.events()[-1]["usage"]["total_tokens"] == 7

    asyncio.run(run())


def test_whole_answers() -> None:
    """The same text as streamed, every null written, usage with cached tokens."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            streamed = await post(trtllm, "/v1/chat/completions", {**CHAT, "stream": True})
            answer = (await post(trtllm, "/v1/chat/completions", CHAT)).json()
            message = answer["choices"][0]["message"]
            assert message["content"] == words(streamed)
            assert message["tool_calls"] == []
            assert answer["choices"][0]["stop_reason"] is None
            assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
            text = (await post(trtllm, "/v1/completions", TEXT)).json()
            parts = await post(trtllm, "/v1/completions", {**TEXT, "stream": True})
            assert parts.events()[0]["usage"] is None
            assert "".join(one["choices"][0]["text"] for one in parts.events()) == text["choices"][0]["text"]

    asyncio.run(run())


def test_choices_and_batches() -> None:
    """`n` choices of a prompt, several prompts, and a role chunk for each choice of a chat."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            sampled = {**CHAT, "temperature": 1, "n": 2}
            answer = (await post(trtllm, "/v1/chat/completions", sampled)).json()
            first, second = (choice["message"]["content"] for choice in answer["choices"])
            assert first != second
            assert answer["usage"]["completion_tokens"] == 12
            streamed = await post(trtllm, "/v1/chat/completions", {**sampled, "stream": True})
            roles = [event["choices"][0] for event in streamed.events()[:2]]
            assert [choice["index"] for choice in roles] == [0, 1]
            assert streamed.body.count(b'"finish_reason":"length"') == 2
            batch = (await post(trtllm, "/v1/completions", {**TEXT, "prompt": ["a", "b"], "n": 2})).json()
            assert [choice["index"] for choice in batch["choices"]] == [0, 1, 2, 3]

    asyncio.run(run())


def test_prompts_as_token_ids() -> None:
    """Completions take ids, chat takes `prompt_token_ids`; with `detokenize: false` ids come back."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            as_text = (await post(trtllm, "/v1/completions", TEXT)).json()["choices"][0]["text"]
            ids = encode("Hi!")
            as_ids = {**TEXT, "prompt": ids}
            assert (await post(trtllm, "/v1/completions", as_ids)).json()["choices"][0]["text"] == as_text
            raw = {**as_ids, "detokenize": False}
            whole = (await post(trtllm, "/v1/completions", raw)).json()["choices"][0]
            assert (whole["text"], whole["token_ids"]) == ("", encode(as_text))
            parts = (await post(trtllm, "/v1/completions", {**raw, "stream": True})).events()
            assert [one["choices"][0]["token_ids"] for one in parts] == [[one] for one in encode(as_text)]
            assert {one["choices"][0]["text"] for one in parts} == {""}
            chat = await post(
                trtllm, "/v1/chat/completions", {**CHAT, "messages": [], "prompt_token_ids": ids}
            )
            assert chat.json()["choices"][0]["message"]["content"] == as_text
            wrong = await post(trtllm, "/v1/completions", {**TEXT, "prompt": [1 << 40]})
            assert (wrong.status, wrong.json()["object"]) == (400, "error")

    asyncio.run(run())


def test_fields_beyond_the_list_are_refused() -> None:
    """A string error from newer servers, a flat one from older ones; what others know is not known here."""

    async def run() -> None:
        for field, value in (
            ("min_tokens_x", 1),
            ("continue_final_message", True),
            ("return_token_ids", True),
            ("request_id", "a"),
        ):
            async with engine("trtllm") as trtllm:
                reply = await post(trtllm, "/v1/chat/completions", {**CHAT, field: value})
                assert reply.status == 400
                assert reply.json()["error"].startswith("1 validation error: {'type': 'extra_forbidden'")
        async with engine("trtllm", extra={"snapshot": "old"}) as trtllm:
            reply = await post(trtllm, "/v1/chat/completions", {**CHAT, "priority": 0.9})
            assert reply.json()["object"] == "error"
            assert "'priority'" in reply.json()["message"]

    asyncio.run(run())


def test_mistakes_in_the_handler_are_flat() -> None:
    """A prompt that is too long, required tools, a template: 400 and one flat object."""

    async def run() -> None:
        async with engine("trtllm", max_model_len=256) as trtllm:
            for fields, said in (
                ({"max_tokens": 1000}, "should not exceed max_seq_len (256)"),
                ({"messages": [{"role": "user", "content": "x" * 900}]}, "should not exceed"),
                ({"tools": [WEATHER], "tool_choice": "required"}, "not supported"),
                ({"chat_template": "{{ messages }}"}, "chat_template cannot be supplied"),
                ({"response_format": {"type": "json_schema"}}, "json_schema is required"),
                ({"n": 0}, "n must be at least 1"),
            ):
                reply = await post(trtllm, "/v1/chat/completions", {**CHAT, **fields, "stream": True})
                assert (reply.status, reply.json()["type"], reply.json()["code"]) == (
                    400,
                    "BadRequestError",
                    400,
                )
                assert said in reply.json()["message"]

    asyncio.run(run())


def test_a_new_id_for_every_chunk() -> None:
    """Older servers make one up each time."""

    async def run() -> None:
        async with engine("trtllm", extra={"snapshot": "old"}) as trtllm:
            reply = await post(trtllm, "/v1/chat/completions", {**CHAT, "stream": True})
            ids = [event["id"] for event in reply.events()]
            assert len(set(ids)) == len(ids) == 7

    asyncio.run(run())


def test_broken_streams() -> None:
    """Chat is cut with no word; completions say it, and `[DONE]` twice."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            fault = {"x-fault": "error@3"}
            chat = await post(trtllm, "/v1/chat/completions", {**CHAT, "stream": True}, fault)
            assert (chat.status, chat.whole) == (200, False)
            assert len(chat.events()) == 4
            assert b"error" not in chat.body
            assert b"[DONE]" not in chat.body
            text = await post(trtllm, "/v1/completions", {**TEXT, "stream": True}, fault)
            assert text.whole
            golden = (FIXTURES / "completions_stream_midstream_error_double_done.sse").read_bytes()
            assert text.body.endswith(golden[golden.index(b'data: {"error"') :])
            whole = await post(trtllm, "/v1/chat/completions", CHAT, fault)
            assert (whole.status, whole.json()["type"]) == (400, "BadRequestError")
            ended = await post(
                trtllm, "/v1/chat/completions", {**CHAT, "stream": True}, {"x-fault": "abort@2"}
            )
            assert ended.events()[-1]["choices"][0]["finish_reason"] == "cancelled"
            status = await post(trtllm, "/v1/chat/completions", CHAT, {"x-fault": "status=503"})
            assert (status.status, status.json()["code"]) == (503, 503)

    asyncio.run(run())


def test_timings_on_request() -> None:
    """With the header and the option: a named event after `[DONE]`, or headers; otherwise neither."""

    async def run() -> None:
        wanted = {"X-TRTLLM-return-metrics": "1"}
        streamed = {**CHAT, "stream": True}
        async with engine("trtllm", extra={"return_metrics_header": True}) as trtllm:
            reply = await post(trtllm, "/v1/chat/completions", streamed, wanted)
            assert reply.chunks[-2] == b"data: [DONE]\n\n"
            assert reply.chunks[-1].startswith(
                b'event: trtllm.perf_metrics\ndata: {"Server-Timing":"server_queue;dur='
            )
            whole = await post(trtllm, "/v1/completions", TEXT, wanted)
            assert whole.headers["server-timing"].startswith("server_queue;dur=")
            assert (await post(trtllm, "/v1/chat/completions", streamed)).chunks[-1] == b"data: [DONE]\n\n"
        async with engine("trtllm") as trtllm:
            assert b"perf_metrics" not in (await post(trtllm, "/v1/chat/completions", streamed, wanted)).body

    asyncio.run(run())


def test_tools() -> None:
    """Off unless chosen; a named function's call ends with `stop`, one of the model's own with `tool_calls`."""

    async def run() -> None:
        async with engine("trtllm", extra={"auto_calls": True}) as trtllm:
            asked = {**CHAT, "max_tokens": 100, "tools": [WEATHER]}
            plain = (await post(trtllm, "/v1/chat/completions", asked)).json()["choices"][0]
            assert plain["message"]["tool_calls"] == []
            named = {**asked, "tool_choice": {"type": "function", "function": {"name": "f"}}}
            choice = (await post(trtllm, "/v1/chat/completions", named)).json()["choices"][0]
            assert choice["finish_reason"] == "stop"
            assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]).keys() == {"city"}
            auto = {**asked, "tool_choice": "auto"}
            choice = (await post(trtllm, "/v1/chat/completions", auto)).json()["choices"][0]
            assert choice["finish_reason"] == "tool_calls"
            stream = await post(trtllm, "/v1/chat/completions", {**auto, "stream": True})
            calls = [event["choices"][0]["delta"]["tool_calls"][0] for event in stream.events()[1:]]
            assert calls[0]["function"]["name"] == "f"
            assert "id" in calls[0]
            assert all(call_.keys() == {"type", "index", "function"} for call_ in calls[1:])
            text = "".join(call_["function"].get("arguments", "") for call_ in calls)
            assert text == choice["message"]["tool_calls"][0]["function"]["arguments"]
            assert stream.events()[-1]["choices"][0]["finish_reason"] == "tool_calls"
            messages = [*CHAT["messages"], {"role": "tool", "content": "rain"}]
            after = await post(trtllm, "/v1/chat/completions", {**auto, "messages": messages})
            assert after.json()["choices"][0]["finish_reason"] != "tool_calls"

    asyncio.run(run())


def test_response_formats_and_logprobs() -> None:
    """Schemas are obeyed; log-probabilities come for each token."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
            for wanted in (
                {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
                {"type": "json", "schema": schema},
            ):
                asked = {**CHAT, "max_tokens": 50, "response_format": wanted}
                answer = (await post(trtllm, "/v1/chat/completions", asked)).json()
                assert json.loads(answer["choices"][0]["message"]["content"]).keys() == {"n"}
            asked = {**CHAT, "logprobs": True, "top_logprobs": 2}
            whole = (await post(trtllm, "/v1/chat/completions", asked)).json()["choices"][0]["logprobs"]
            assert [len(entry["top_logprobs"]) for entry in whole["content"]] == [2] * 6
            parts = (
                await post(trtllm, "/v1/chat/completions", {**CHAT, "logprobs": True, "stream": True})
            ).events()
            assert "top_logprobs" not in parts[1]["choices"][0]["logprobs"]["content"][0]
            text = (await post(trtllm, "/v1/completions", {**TEXT, "logprobs": 1})).json()["choices"][0]
            assert "".join(text["logprobs"]["tokens"]) == text["text"]
            assert len(text["logprobs"]["top_logprobs"]) == 6

    asyncio.run(run())


def test_echo_and_stop() -> None:
    """`echo` repeats the prompt; a stop string is named in `stop_reason` and left out of the text."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            text = (await post(trtllm, "/v1/completions", TEXT)).json()["choices"][0]["text"]
            for stream in (False, True):
                reply = await post(trtllm, "/v1/completions", {**TEXT, "echo": True, "stream": stream})
                answers = reply.events() if stream else [reply.json()]
                assert "".join(one["choices"][0]["text"] for one in answers) == "Hi!" + text
            stop = text.split(" ")[3]
            stopped = (await post(trtllm, "/v1/completions", {**TEXT, "stop": stop})).json()["choices"][0]
            assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", stop)
            assert stop not in stopped["text"]
            messages = [*CHAT["messages"], {"role": "assistant", "content": "Well"}]
            echoed = {**CHAT, "messages": messages, "echo": True}
            whole = (await post(trtllm, "/v1/chat/completions", echoed)).json()["choices"][0]["message"][
                "content"
            ]
            streamed = await post(trtllm, "/v1/chat/completions", {**echoed, "stream": True})
            assert words(streamed) == whole
            assert whole.startswith("Well")

    asyncio.run(run())


def test_iteration_records_are_taken_out_by_reading() -> None:
    """Nothing at first, then everything since; the reader waits for a first record, but not for ever."""

    async def run() -> None:
        async with engine("trtllm", extra={"metrics_patience_s": 0.05}) as trtllm:
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert (await get(trtllm, "/metrics")).body == (FIXTURES / "metrics_empty.json").read_bytes()
            assert loop.time() - began >= 0.05
            await post(trtllm, "/v1/chat/completions", CHAT)
            records = (await get(trtllm, "/metrics")).json()
            golden = json.loads((FIXTURES / "metrics_iteration_stats.json").read_bytes())[0]
            assert [list(record) for record in records] == [list(golden)] * len(records)
            assert [record["iter"] for record in records] == list(range(1, len(records) + 1))
            assert sum(record["inflightBatchingStats"]["numGenRequests"] for record in records) == 5
            assert sum(record["numCompletedRequests"] for record in records) == 1
            assert (await get(trtllm, "/metrics")).json() == []

    asyncio.run(run())


def test_a_waiting_reader_gets_the_first_records() -> None:
    """The reading blocks until something completes."""

    async def run() -> None:
        async with engine("trtllm", extra={"metrics_patience_s": 5}) as trtllm:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(get(trtllm, "/metrics"))
                await until(lambda: len(trtllm.log))
                await post(trtllm, "/v1/chat/completions", CHAT)
            assert len(reading.result().json()) >= 1

    asyncio.run(run())


def test_records_and_gauges_wait_for_a_completion() -> None:
    """While only long streams run, `/metrics` is empty and the gauges say what they said before."""

    async def run() -> None:
        async with engine("trtllm", speed=20, extra={"metrics_patience_s": 0}) as trtllm:
            asked = json.dumps({**CHAT, "max_tokens": 4000, "stream": True}).encode()
            headers = {"content-type": "application/json"}
            async with opened(trtllm, "POST", "/v1/chat/completions", asked, headers) as (_, reader, __):
                assert await read_chunk(reader)
                await until(lambda: trtllm.core.stats().steps > 5)
                assert (await get(trtllm, "/metrics")).json() == []
                assert b"num_requests_running" not in (await get(trtllm, "/prometheus/metrics")).body
                await post(trtllm, "/v1/chat/completions", CHAT)
                assert len((await get(trtllm, "/metrics")).json()) > 5
                stale = (await get(trtllm, "/prometheus/metrics")).body
                assert (
                    b'trtllm_num_requests_running{engine_type="pytorch",model_name="demo-8b"} 1.0\n' in stale
                )

    asyncio.run(run())


def test_records_without_the_collector_come_at_once() -> None:
    """Without `return_perf_metrics` there is no Prometheus path, and nobody holds records back."""

    async def run() -> None:
        async with engine("trtllm", speed=20, extra={"return_perf_metrics": False}) as trtllm:
            asked = json.dumps({**CHAT, "max_tokens": 4000, "stream": True}).encode()
            headers = {"content-type": "application/json"}
            async with opened(trtllm, "POST", "/v1/chat/completions", asked, headers):
                assert len((await get(trtllm, "/metrics")).json()) >= 1
            assert (await get(trtllm, "/prometheus/metrics")).status == 404

    asyncio.run(run())


@pytest.mark.parametrize(
    ("snapshot", "present", "absent"),
    [
        (
            "new",
            [
                'trtllm_request_success_total{engine_type="pytorch",finished_reason="length",model_name="demo-8b"} 2.0',
                'trtllm_generation_tokens_total{engine_type="pytorch",model_name="demo-8b"} 12.0',
                'trtllm_prompt_cached_tokens_total{engine_type="pytorch",model_name="demo-8b"} 96.0',
                'trtllm_request_queue_time_seconds_count{engine_type="pytorch",model_name="demo-8b"} 2.0',
                'trtllm_kv_cache_reused_blocks_total{engine_type="pytorch",model_name="demo-8b"} 3.0',
                'trtllm_kv_cache_hit_rate{engine_type="pytorch",model_name="demo-8b"} 0.5',
            ],
            ["\nrequest_success_total"],
        ),
        (
            "mid",
            [
                'request_success_total{engine_type="undefined",finished_reason="length",model_name="undefined"} 2.0',
                'trtllm_kv_cache_hit_rate{engine_type="undefined",model_name="undefined"} 0.5',
            ],
            ["trtllm_num_requests_running", "trtllm_request_success_total"],
        ),
        (
            "old",
            [
                'request_success_total{engine_type="undefined",finished_reason="length",model_name="undefined"} 2.0',
                'e2e_request_latency_seconds_bucket{engine_type="undefined",le="+Inf",model_name="undefined"} 2.0',
            ],
            ["trtllm_"],
        ),
    ],
)
def test_prometheus_names(snapshot: str, present: list[str], absent: list[str]) -> None:
    """Three sets of names and labels."""

    async def run() -> None:
        async with engine("trtllm", extra={"snapshot": snapshot}) as trtllm:
            asked = {**CHAT, "messages": [{"role": "user", "content": "x" * 300}]}
            for _ in range(2):
                await post(trtllm, "/v1/chat/completions", asked)
            text = (await get(trtllm, "/prometheus/metrics")).text
            assert set(present) <= set(text.splitlines())
            assert not any(name in text for name in absent)

    asyncio.run(run())


def test_kv_cache_events() -> None:
    """Numbered from the creation of the pool, hashes chained as published, gone after reading."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            ids = list(range(5000, 5100))
            await post(trtllm, "/v1/completions", {**TEXT, "prompt": ids})
            created, stored = (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()
            assert created["data"] == {"type": "created", "num_blocks_per_cache_level": [13125, 0]}
            assert (stored["event_id"], stored["data"]["type"], stored["data"]["parent_hash"]) == (
                1,
                "stored",
                None,
            )
            blocks = stored["data"]["blocks"]
            assert [token["token_id"] for block in blocks for token in block["tokens"]] == ids[:96]
            parent = None
            for at, block in enumerate(blocks):
                parent = block_key(ids[at * 32 : (at + 1) * 32], parent)
                assert block["block_hash"] == parent
            await post(trtllm, "/v1/completions", {**TEXT, "prompt": ids[:96] + list(range(6000, 6040))})
            (more,) = (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()
            assert (more["event_id"], more["data"]["parent_hash"]) == (2, parent)
            assert (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json() == []

    asyncio.run(run())


def test_salted_blocks_have_other_hashes() -> None:
    """Equal prompts with different salts must not look alike."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            asked = {**CHAT, "messages": [{"role": "user", "content": "x" * 300}]}
            await post(trtllm, "/v1/chat/completions", asked)
            await post(trtllm, "/v1/chat/completions", {**asked, "cache_salt": "a"})
            _, plain, salted = (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()
            first, other = plain["data"]["blocks"][0], salted["data"]["blocks"][0]
            assert first["tokens"] == other["tokens"]
            assert first["block_hash"] != other["block_hash"]

    asyncio.run(run())


def test_lost_events_leave_a_gap() -> None:
    """A small buffer keeps the newest; the numbers tell; evicted blocks are removed by their hashes."""

    async def run() -> None:
        extra = {"event_buffer_max_size": 3}
        async with engine("trtllm", num_blocks=10, max_model_len=200, extra=extra) as trtllm:
            for start in (5000, 6000, 7000, 8000):
                await post(trtllm, "/v1/completions", {**TEXT, "prompt": list(range(start, start + 100))})
            events = (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json()
            assert len(events) == 3
            assert events[0]["event_id"] > 1
            assert [event["event_id"] for event in events[1:]] == [
                events[0]["event_id"] + 1,
                events[0]["event_id"] + 2,
            ]
            assert {event["data"]["type"] for event in events} == {"stored", "removed"}
        async with engine("trtllm", extra={"event_buffer_max_size": 0}) as trtllm:
            await post(trtllm, "/v1/completions", TEXT)
            assert (await call(trtllm, "POST", "/kv_cache_events", b"", {})).json() == []

    asyncio.run(run())


def test_health() -> None:
    """Older servers never notice; newer ones answer 503 in plain text; only a generation really tells."""

    async def run() -> None:
        async with engine("trtllm") as trtllm:
            assert ((await get(trtllm, "/health")).status, (await get(trtllm, "/health")).body) == (200, b"")
            assert (await get(trtllm, "/health_generate")).text == "Generation health check OK"
            trtllm.core.kill()
            dead = await get(trtllm, "/health")
            assert dead.status == 503
            assert dead.text == "LLM is unavailable. Please check the server logs for more details."
            assert (await get(trtllm, "/health_generate")).status == 500
            refused = await post(trtllm, "/v1/chat/completions", CHAT)
            assert (refused.status, refused.json()["object"]) == (400, "error")
        async with engine("trtllm", extra={"snapshot": "old"}) as trtllm:
            trtllm.core.kill()
            assert (await get(trtllm, "/health")).status == 200

    asyncio.run(run())


def test_information() -> None:
    """Version, model list, server info, the tokenizer, and FastAPI's answer to unknown paths."""

    async def run() -> None:
        async with engine("trtllm", model="org/model-8b") as trtllm:
            assert (await get(trtllm, "/version")).json() == {"version": "1.4.0rc1"}
            (card,) = (await get(trtllm, "/v1/models")).json()["data"]
            assert (card["id"], card["owned_by"]) == ("model-8b", "tensorrt_llm")
            assert (await get(trtllm, "/server_info")).json()["tokens_per_block"] == 32
            ids = encode("Grüße")
            tokens = await post(trtllm, "/_internal/tokenize", {"prompt": "Grüße"})
            assert tokens.json() == {"count": len(ids), "tokens": ids}
            assert (await post(trtllm, "/_internal/tokenize", {"text": "a"})).status == 400
            assert (await get(trtllm, "/perf_metrics")).json() == {"detail": "Not Found"}
            assert (await get(trtllm, "/v1/chat/completions")).json() == {"detail": "Method Not Allowed"}
            assert trtllm.dialect.traits.idle_timeout_s == 5.0

    asyncio.run(run())


def test_perf_records() -> None:
    """Older servers keep one per request, until it is read."""

    async def run() -> None:
        async with engine("trtllm", extra={"snapshot": "mid"}) as trtllm:
            await post(trtllm, "/v1/chat/completions", CHAT)
            (record,) = (await get(trtllm, "/perf_metrics")).json()
            timing = record["perf_metrics"]["timing_metrics"]
            assert timing["arrival_time"] <= timing["first_scheduled_time"] <= timing["first_token_time"]
            assert (record["perf_metrics"]["first_iter"], record["perf_metrics"]["last_iter"]) == (1, 6)
            assert record["perf_metrics"]["kv_cache_metrics"]["num_new_allocated_blocks"] == 1
            assert (await get(trtllm, "/perf_metrics")).json() == []

    asyncio.run(run())


def test_a_client_that_leaves_is_noticed_at_the_next_poll() -> None:
    """The server looks once a second, so decoding goes on for a while."""

    async def run() -> None:
        async with engine("trtllm", speed=20) as trtllm:
            asked = json.dumps({**CHAT, "max_tokens": 8000, "stream": True}).encode()
            headers = {"content-type": "application/json"}
            async with opened(trtllm, "POST", "/v1/chat/completions", asked, headers) as (_, reader, __):
                assert await read_chunk(reader)
            await until(lambda: trtllm.log[0].client_closed_s is not None)
            steps = trtllm.core.stats().steps
            await until(lambda: trtllm.core.stats().steps > steps + 20)
            assert trtllm.core.stats().running == 1
            await until(lambda: trtllm.core.stats().running == 0)
            record = trtllm.log[0]
            assert record.noticed_s is not None
            assert 0.9 < record.noticed_s - record.arrived_s < 3

    asyncio.run(run())


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
