"""trtllm-serve's requests and whole answers on real sockets."""

import asyncio
import json
from typing import Any

from loadtest.engine.tokens import encode
from tests.support.engine_client import Reply, engine, post

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
