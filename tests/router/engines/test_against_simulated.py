"""The adapters over real sockets, against the simulated engines: each answers what it was sent."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from loadtest.engine.server import engine_options, serve_engine
from router.api.request import Endpoint, InferenceRequest
from router.engines.collector import StreamCollector
from router.engines.engine import Answer, Engine, Failure
from router.engines.failures import read_failure
from tests.router.engines.making import CHAT_TEMPLATE, Seen, engine, request

CHAT, COMPLETIONS = Endpoint.CHAT, Endpoint.COMPLETIONS
FAST = 1000.0
REPLICAS: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vllm": ("vllm", {}, {}),
    "tgi": ("tgi", {}, {}),
    "tgi before 2.1": ("tgi", {"framing": "pre2.1"}, {}),
    "trtllm": ("trtllm", {}, {}),
    "trtllm in 2025": ("trtllm", {"snapshot": "old"}, {}),
    "triton ensemble": ("triton", {"layout": "ensemble"}, {"chat_template": CHAT_TEMPLATE}),
    "triton llmapi": (
        "triton", {"layout": "llmapi"}, {"chat_template": CHAT_TEMPLATE, "model_name": "tensorrt_llm"},
    ),
    "triton llmapi with deltas": (
        "triton", {"layout": "llmapi", "output": "delta"},
        {"chat_template": CHAT_TEMPLATE, "model_name": "tensorrt_llm"},
    ),
}  # fmt: skip
"""Name: kind, the replica's knobs, what the target tells of it."""
MEMBERS = {
    CHAT: {"messages": [{"role": "user", "content": "Tell me of ships."}]},
    COMPLETIONS: {"prompt": "Ships are"},
}
AWKWARD: dict[str, Any] = {
    "top_p": 1, "seed": -3, "stop": "never-said", "n": 1, "presence_penalty": 0, "user": "u",
    "metadata": {"a": "b"}, "logit_bias": None, "response_format": {"type": "text"},
}  # fmt: skip


def _asked(endpoint: Endpoint, *, stream: bool, max_tokens: int = 12, **more: Any) -> InferenceRequest:
    members = {"model": "llama-8b", **MEMBERS[endpoint], "max_tokens": max_tokens, "stream": stream, **more}
    return request(endpoint, members, max_tokens=max_tokens, include_usage=stream)


async def _exchange(adapter: Engine, asked: InferenceRequest, url: str) -> Seen | Answer | Failure:
    """What the client of `asked` gets, piece by piece as the socket gives them."""
    upstream = adapter.to_upstream(asked)
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        post = client.stream(
            "POST", upstream.path, content=upstream.body, headers={"content-type": "application/json"}
        )
        async with post as response:
            if response.status_code >= 400:
                content_type = response.headers.get("content-type", "")
                return read_failure(adapter.kind, response.status_code, content_type, await response.aread())
            if not upstream.streams:
                return adapter.read_answer(asked, await response.aread())
            reader = adapter.open_stream(asked)
            if not asked.stream:
                reader = StreamCollector(asked, reader)
            out = b"".join([reader.feed(piece) async for piece in response.aiter_raw()]) + reader.end()
            if reader.failure is not None:
                return reader.failure
            if isinstance(reader, StreamCollector):
                return reader.answer()
            return Seen(
                out, reader.started, reader.done, reader.usage, reader.finish_reason, reader.pieces, None
            )


def _run(name: str, asked: InferenceRequest, **options: Any) -> Seen | Answer | Failure:
    kind, knobs, target = REPLICAS[name]

    async def scenario() -> Seen | Answer | Failure:
        changed = engine_options(kind, speed=FAST, extra=knobs, **options)
        async with await serve_engine(changed) as replica:
            return await _exchange(engine(kind, **target), asked, replica.url)

    return asyncio.run(scenario())


def _text(out: bytes, endpoint: Endpoint) -> str:
    payloads = [frame[6:] for frame in out.split(b"\n\n")[:-1]]
    assert payloads[-1] == b"[DONE]"
    choices = [choice for payload in payloads[:-1] for choice in msgspec.json.decode(payload)["choices"]]
    if endpoint is CHAT:
        return "".join(choice["delta"].get("content") or "" for choice in choices)
    return "".join(choice["text"] for choice in choices)


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("name", REPLICAS)
def test_a_stream_and_a_whole_answer_say_the_same(name: str, endpoint: Endpoint) -> None:
    """Deterministic engines: text, finish reason and, where the engine counts, usage."""
    stream = _run(name, _asked(endpoint, stream=True, temperature=0))
    answer = _run(name, _asked(endpoint, stream=False, temperature=0))
    assert isinstance(stream, Seen), stream
    assert isinstance(answer, Answer), answer
    if endpoint is CHAT:
        chat = ChatCompletion.model_validate_json(answer.body)
        text, model = chat.choices[0].message.content, chat.model
    else:
        completion = Completion.model_validate_json(answer.body)
        text, model = completion.choices[0].text, completion.model
    assert _text(stream.out, endpoint) == text
    assert text
    assert model == "llama-8b"
    assert b'"model":"llama-8b"' in stream.out
    assert b"demo-8b" not in stream.out
    assert stream.finish_reason == answer.finish_reason == "length"
    assert b'"usage":{' in stream.out
    assert b'"usage":{' in answer.body
    if not name.startswith("triton"):
        assert stream.usage is not None
        assert answer.usage is not None
        assert stream.usage.completion_tokens == answer.usage.completion_tokens == 12


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("name", REPLICAS)
def test_what_openai_clients_send_is_accepted_everywhere(name: str, endpoint: Endpoint, stream: bool) -> None:
    """Members that one engine or the other refuses as they are."""
    result = _run(name, _asked(endpoint, stream=stream, **AWKWARD))
    assert isinstance(result, Seen if stream else Answer), result


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["vllm", "tgi", "trtllm", "trtllm in 2025", "triton llmapi"])
def test_a_prompt_that_is_too_long_is_the_clients_fault(name: str, stream: bool) -> None:
    """As a status, or as the first event under status 200."""
    asked = _asked(COMPLETIONS, stream=stream, prompt="ship " * 400)
    result = _run(name, asked, max_model_len=64)
    assert isinstance(result, Failure), result
    assert (result.error.code, result.retry) == ("context_length_exceeded", False)
