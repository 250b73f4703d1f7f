"""Complete answers: in the client's words, or the failure that a 200 hides."""

from typing import Any

import msgspec
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from router.api.request import Endpoint, Usage
from router.engines.engine import Answer, Failure
from tests.router.engines.making import CHAT_TEMPLATE, FIXTURES, NOW, engine, fixture, request

CHAT, COMPLETIONS = Endpoint.CHAT, Endpoint.COMPLETIONS
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
REAL_ENDPOINTS = {
    "chat": CHAT, "completions": COMPLETIONS, "messages": Endpoint.MESSAGES, "responses": Endpoint.RESPONSES,
    "tokenize": Endpoint.TOKENIZE, "detokenize": Endpoint.DETOKENIZE,
}  # fmt: skip
REAL = sorted(
    path.name
    for path in (FIXTURES / "vllm-recorded").glob("*.json")
    if path.stem.partition("_")[0] in REAL_ENDPOINTS and path.name != "chat_paused.json"
)


def _answer(kind: str, endpoint: Endpoint, body: bytes, **target: Any) -> Answer:
    asked = request(endpoint, {"model": "m", "messages": [], "prompt": "p"})
    answer = engine(kind, **target).read_answer(asked, body)
    assert isinstance(answer, Answer), answer
    return answer


def _failure(kind: str, endpoint: Endpoint, body: bytes) -> Failure:
    answer = engine(kind).read_answer(request(endpoint, {"model": "m"}), body)
    assert isinstance(answer, Failure), answer
    return answer


def _chat(**choice: Any) -> dict[str, Any]:
    whole = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop", **choice}
    return {
        "id": "", "object": "chat.completion", "created": NOW, "model": "demo-8b", "choices": [whole],
        "usage": USAGE,
    }  # fmt: skip


def test_only_the_models_name_changes() -> None:
    """vLLM's answer, every other byte as it was."""
    body = fixture("vllm/chat_full.json")
    answer = _answer("vllm", CHAT, body)
    assert answer.body == body.replace(b'"model":"demo-8b"', b'"model":"llama-8b"')
    assert (answer.usage, answer.finish_reason) == (Usage(11, 3), "stop")
    ChatCompletion.model_validate_json(answer.body)


def test_nothing_changes_where_nothing_must() -> None:
    """The very bytes."""
    body = fixture("vllm/chat_full.json")
    assert _answer("vllm", CHAT, body, public_name="demo-8b").body is body


@pytest.mark.parametrize("name", REAL)
def test_a_real_answer_only_changes_the_models_name(name: str) -> None:
    """What vLLM 0.32 answered, on every endpoint that was recorded."""
    body = fixture(f"vllm-recorded/{name}")
    endpoint = REAL_ENDPOINTS[name.removesuffix(".json").partition("_")[0]]
    answer = _answer("vllm", endpoint, body)
    assert answer.body == body.replace(b'"model":"tiny"', b'"model":"llama-8b"')
    said = msgspec.json.decode(body).get("usage")
    if said is None:
        assert answer.usage is None
    else:
        prompt = said.get("prompt_tokens", said.get("input_tokens"))
        completion = said.get("completion_tokens", said.get("output_tokens"))
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, completion)
        assert answer.usage.cached_tokens is not None


def test_tgi_chats_get_an_id_and_openais_words() -> None:
    """An empty id, `eos_token`, tool calls that end with `stop`."""
    answer = _answer("tgi", CHAT, msgspec.json.encode(_chat(finish_reason="eos_token")))
    parsed = ChatCompletion.model_validate_json(answer.body)
    assert (parsed.id, parsed.model, parsed.choices[0].finish_reason) == (
        "chatcmpl-req-7",
        "llama-8b",
        "stop",
    )
    call = {"id": "0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = _chat(message={"role": "assistant", "tool_calls": [call]})
    answer = _answer("tgi", CHAT, msgspec.json.encode(called))
    assert answer.finish_reason == "tool_calls"
    assert ChatCompletion.model_validate_json(answer.body).choices[0].finish_reason == "tool_calls"


def test_tgi_completions_get_an_id_and_openais_words() -> None:
    """`length` stays, `stop_sequence` does not."""
    choice = {"index": 0, "text": "Hi", "logprobs": None, "finish_reason": "stop_sequence"}
    body = {"object": "text_completion", "id": "", "created": NOW, "model": "m", "choices": [choice]}
    answer = _answer("tgi", COMPLETIONS, msgspec.json.encode({**body, "usage": USAGE}))
    parsed = Completion.model_validate_json(answer.body)
    assert (parsed.id, parsed.choices[0].finish_reason) == ("cmpl-req-7", "stop")
    assert answer.usage == Usage(11, 3)


@pytest.mark.parametrize("kind", ["vllm", "tgi", "trtllm"])
@pytest.mark.parametrize("reason", ["abort", "cancelled", "timeout", "error", None, 7])
def test_an_answer_that_was_given_up_is_a_failure(kind: str, reason: object) -> None:
    """HTTP 200 with part of the text: vLLM's pause, trtllm-serve's time limit."""
    failure = _failure(kind, CHAT, msgspec.json.encode(_chat(finish_reason=reason)))
    assert failure.retry
    assert failure.error.code in ("upstream_error", "upstream_reset")


def test_a_real_paused_answer_is_a_failure() -> None:
    """As vLLM 0.32 answered when it was paused."""
    failure = _failure("vllm", CHAT, fixture("vllm-recorded/chat_paused.json"))
    assert failure.error.message == "The replica gave up on the answer: abort."


@pytest.mark.parametrize(
    ("body", "code", "retry"),
    [
        (b'{"error":{"message":"x","code":500}}', "upstream_error", True),
        (b'{"error":"Model is overloaded","error_type":"overloaded"}', "overloaded", True),
        (b'{"object":"error","message":"x","type":"BadRequestError","code":400}', "invalid_request", False),
        (b"null", "upstream_protocol", True),
        (b"", "upstream_protocol", True),
        (b"[]", "upstream_protocol", True),
        (b"{", "upstream_protocol", True),
        (b"{}", "upstream_protocol", True),
        (b'{"choices":[]}', "upstream_protocol", True),
        (b'{"choices":[1]}', "upstream_protocol", True),
        (b'{"choices":' + b"[" * 100_000, "upstream_protocol", True),
        (b'{"choices":[{"finish_reason":"stop","message":"\xff"}]}', "upstream_protocol", True),
    ],
)
@pytest.mark.parametrize("kind", ["vllm", "tgi", "trtllm"])
def test_a_200_that_is_no_answer_is_a_failure(kind: str, body: bytes, code: str, retry: bool) -> None:
    """An error object, trtllm-serve's `null` after a crash, anything broken."""
    failure = _failure(kind, CHAT, body)
    assert (failure.error.code, failure.retry) == (code, retry)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_response_that_failed_is_a_failure(status: str) -> None:
    """With the error that it tells, or without one."""
    told = {
        "id": "r",
        "object": "response",
        "status": status,
        "error": {"code": "server_error", "message": "x"},
    }
    assert _failure("vllm", Endpoint.RESPONSES, msgspec.json.encode(told)).retry
    assert _failure("vllm", Endpoint.RESPONSES, msgspec.json.encode({**told, "error": None})).retry


def test_embeddings_are_not_decoded() -> None:
    """Only the model's name and usage are; numbers keep their bytes."""
    body = b'{"object":"list","model":"demo-8b","data":[{"embedding":[0.10,1e-05]}],"usage":{"prompt_tokens":4,"total_tokens":4}}'
    answer = _answer("vllm", Endpoint.EMBEDDINGS, body)
    assert answer.body == body.replace(b"demo-8b", b"llama-8b")
    assert (answer.usage, answer.finish_reason) == (Usage(4, 0), None)


@pytest.mark.parametrize("layout", ["ensemble", "llmapi"])
def test_triton_answers_are_completions(layout: str) -> None:
    """A complete answer in its dialect, should one come."""
    triton = engine("triton", layout=layout, chat_template=CHAT_TEMPLATE)
    asked = request(CHAT, {"model": "m", "messages": []})
    answer = triton.read_answer(asked, fixture("triton/generate_full.json"))
    assert isinstance(answer, Answer)
    parsed = ChatCompletion.model_validate_json(answer.body)
    assert parsed.choices[0].message.content == "Hello there"
    assert (answer.finish_reason, answer.usage) == ("stop", None)
    hidden = b'{"error":"generate expects model to produce exactly 1 response"}'
    assert isinstance(triton.read_answer(asked, hidden), Failure)


# ---- tokens and TGI's own answers ----


def test_tgi_tokens_in_vllms_shape() -> None:
    """Of a prompt, of a chat, with and without their texts."""
    tokens = [{"id": 5, "text": "a", "start": 0, "stop": 1}, {"id": 6, "text": "b", "start": 1, "stop": 2}]
    shape = {"count": 2, "max_model_len": None, "tokens": [5, 6], "token_strs": None}
    plain = _answer("tgi", Endpoint.TOKENIZE, msgspec.json.encode(tokens))
    assert msgspec.json.decode(plain.body) == shape
    asked = request(Endpoint.TOKENIZE, {"messages": [], "return_token_strs": True})
    chat = msgspec.json.encode({"tokenize_response": tokens, "templated_text": "ab"})
    answer = engine("tgi").read_answer(asked, chat)
    assert isinstance(answer, Answer)
    assert msgspec.json.decode(answer.body) == {**shape, "token_strs": ["a", "b"]}
    for broken in (b"{}", b'[{"id":"x"}]', b"[", b"\xff"):
        assert _failure("tgi", Endpoint.TOKENIZE, broken).error.code == "upstream_protocol"


def test_tgis_own_answer_passes_untouched() -> None:
    """With what its details tell."""
    details = {"finish_reason": "length", "generated_tokens": 3, "prefill": [{"id": 1}, {"id": 2}]}
    body = msgspec.json.encode({"generated_text": "Hi", "details": details})
    answer = _answer("tgi", Endpoint.GENERATE, body)
    assert answer.body is body
    assert (answer.usage, answer.finish_reason) == (Usage(2, 3), "length")
    assert _answer("tgi", Endpoint.GENERATE, b'{"generated_text":"Hi"}').usage is None
    at_root = _answer("tgi", Endpoint.GENERATE_ROOT, b"[%b]" % body)
    assert (at_root.body, at_root.usage) == (b"[%b]" % body, Usage(2, 3))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error":"Model is overloaded","error_type":"overloaded"}', "overloaded"),
        (b"{}", "upstream_protocol"),
        (b"[", "upstream_protocol"),
    ],
)
def test_tgis_own_answer_that_is_none(body: bytes, code: str) -> None:
    """An error, or nothing of the kind."""
    assert _failure("tgi", Endpoint.GENERATE, body).error.code == code
