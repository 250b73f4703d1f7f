"""What each engine is sent: the client's bytes where nothing must change, its dialect where it must."""

from typing import Any, get_args

import msgspec
import pytest

from router.api.errors import EndpointNotSupported, RequestError
from router.api.request import Endpoint, InferenceRequest
from router.engines import ENGINES
from router.engines.engine import Need
from tests.router.engines.making import CHAT_TEMPLATE, SERVED, engine, request

CHAT, COMPLETIONS = Endpoint.CHAT, Endpoint.COMPLETIONS
MESSAGES = [{"role": "user", "content": "Hi!"}]
ASKED = {"include_usage": True}


def _sent(kind: str, asked: InferenceRequest, **target: Any) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.json.decode(engine(kind, **target).to_upstream(asked).body)
    return members


def _chat(**members: Any) -> InferenceRequest:
    return request(CHAT, {"model": SERVED, "messages": MESSAGES, **members})


def _completion(**members: Any) -> InferenceRequest:
    return request(COMPLETIONS, {"model": SERVED, "prompt": "p", **members})


# ---- all of them ----


@pytest.mark.parametrize("kind", ENGINES)
def test_offers_are_needs(kind: str) -> None:
    """In the words that requests use."""
    offers = engine(kind, chat_template=CHAT_TEMPLATE).offers
    assert offers <= set(get_args(Need))
    assert {"chat", "completions"} <= offers
    assert engine(kind).kind == kind


OFFERS = {
    "vllm": {
        "chat", "completions", "embeddings", "responses", "messages", "tokenize", "detokenize", "rerank",
        "score", "n", "logprobs", "prompt_logprobs", "echo", "suffix", "logit_bias", "tools",
        "tool_choice_required", "json_object", "json_schema", "token_prompt", "batch_prompt",
    },
    "tgi": {
        "chat", "completions", "generate", "tokenize", "logprobs", "tools", "tool_choice_required",
        "json_schema",
    },
    "trtllm": {
        "chat", "completions", "responses", "messages", "n", "best_of", "logprobs", "echo", "logit_bias",
        "tools", "json_object", "json_schema", "token_prompt", "batch_prompt",
    },
    "triton": {"completions"},
}  # fmt: skip


@pytest.mark.parametrize("kind", ENGINES)
def test_what_each_engine_offers(kind: str) -> None:
    """Neither more nor less: a request that needs more goes elsewhere."""
    assert engine(kind).offers == OFFERS[kind]


def test_all_but_tgi_cache_what_they_generated() -> None:
    assert {kind for kind in ENGINES if not engine(kind).caches_answers} == {"tgi"}


@pytest.mark.parametrize("kind", ["vllm", "tgi", "trtllm"])
def test_the_body_is_untouched_where_nothing_must_change(kind: str) -> None:
    """The same bytes object, odd spacing and all."""
    body = b'{ "model" : "demo-8b",  "messages":[{"role":"user","content":"\\u0048i"}], "max_tokens": 5 }'
    asked = request(CHAT, body)
    assert engine(kind).to_upstream(asked).body is asked.body


@pytest.mark.parametrize("kind", ["vllm", "tgi", "trtllm"])
def test_other_members_keep_their_bytes(kind: str) -> None:
    """Where the model is renamed, numbers and escapes stay as they were written."""
    body = b'{"model":"llama-8b","messages":[ {"role":"user","content":"\\u0048i"} ],"temperature":1.50e0}'
    sent = engine(kind).to_upstream(request(CHAT, body)).body
    assert sent == body.replace(b"llama-8b", b"demo-8b")


@pytest.mark.parametrize("kind", ["vllm", "tgi", "trtllm"])
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [False, True])
def test_paths_and_whether_it_streams(kind: str, endpoint: Endpoint, stream: bool) -> None:
    """The endpoint's own path; a stream only where the client wants one."""
    asked = request(endpoint, {"model": "m", "messages": MESSAGES, "prompt": "p", "stream": stream})
    upstream = engine(kind).to_upstream(asked)
    assert (upstream.path, upstream.streams, upstream.headers) == (endpoint.value, stream, ())


@pytest.mark.parametrize(
    ("kind", "endpoint"),
    [
        *[("vllm", endpoint) for endpoint in Endpoint if not endpoint.name.startswith("GENERATE")],
        ("trtllm", Endpoint.RESPONSES),
        ("trtllm", Endpoint.MESSAGES),
    ],
)
def test_every_other_endpoint_only_changes_the_models_name(kind: str, endpoint: Endpoint) -> None:
    """Members that the router has never heard of are the engine's to judge."""
    members = {"model": "llama-8b", "input": "x", "prompt": "p", "messages": MESSAGES, "unheard_of": None}
    if kind == "trtllm":
        del members["unheard_of"]
    sent = _sent(kind, request(endpoint, members))
    assert sent == {**members, "model": SERVED}


# ---- vLLM ----


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"stream_options": ASKED}),
        ({"stream_options": None}, {"stream_options": ASKED}),
        ({"stream_options": {}}, {"stream_options": ASKED}),
        ({"stream_options": {"include_usage": False}}, {"stream_options": ASKED}),
        (
            {"stream_options": {"continuous_usage_stats": True}},
            {"stream_options": {"continuous_usage_stats": True, "include_usage": True}},
        ),
    ],
)
def test_vllm_is_always_asked_for_usage(given: dict[str, Any], sent: dict[str, Any]) -> None:
    """Beside whatever else the client asked for."""
    asked = _chat(stream=True, **given)
    assert _sent("vllm", asked) == {"model": SERVED, "messages": MESSAGES, "stream": True, **sent}


def test_vllm_gets_the_bytes_of_a_client_that_asks_for_usage() -> None:
    """Nothing is missing, nothing is rebuilt."""
    asked = _chat(stream=True, stream_options=ASKED)
    assert engine("vllm").to_upstream(asked).body is asked.body


def test_vllm_is_not_asked_for_usage_where_that_is_an_error() -> None:
    """`stream_options` without a stream is refused; responses and messages have none."""
    assert "stream_options" not in _sent("vllm", _chat(model="x"))
    responses = request(Endpoint.RESPONSES, {"model": "x", "input": "i", "stream": True})
    assert _sent("vllm", responses) == {"model": SERVED, "input": "i", "stream": True}
    assert engine("vllm").to_upstream(responses).streams


# ---- TGI: the translation table ----


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
        ({"stream_options": None, "seed": None}, {}),
        ({"logit_bias": {}}, {}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}}},
            {"response_format": {"type": "json", "value": {"a": 1}}},
        ),
        (
            {"response_format": {"type": "regex", "value": "a+"}},
            {"response_format": {"type": "regex", "value": "a+"}},
        ),
        ({"top_p": 1}, {}),
        ({"top_p": 1.0}, {}),
        ({"top_p": 0.9}, {"top_p": 0.9}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"presence_penalty": 0}, {}),
        ({"presence_penalty": 0.5}, {}),
        ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"seed": 7}, {"seed": 7}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"user": "u", "parallel_tool_calls": True}, {"user": "u", "parallel_tool_calls": True}),
    ],
)
def test_tgi_gets_what_it_accepts(given: dict[str, Any], sent: dict[str, Any]) -> None:
    """Row by row."""
    assert _sent("tgi", _chat(**given)) == {"model": SERVED, "messages": MESSAGES, **sent}


def test_tgi_is_asked_for_usage_and_nothing_else() -> None:
    """Its stream options know one word."""
    asked = _chat(stream=True, stream_options={"continuous_usage_stats": True})
    assert _sent("tgi", asked)["stream_options"] == ASKED


def test_tgi_sees_tool_calls_beside_content() -> None:
    """It reads `content` alone where both are there, even an empty one."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"role": "tool", "tool_call_id": "c", "content": "7"}
    messages = [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [call]}, answer]
    sent = _sent("tgi", request(CHAT, {"model": SERVED, "messages": messages}))["messages"]
    assert sent == [*MESSAGES, {"role": "assistant", "tool_calls": [call]}, answer]


@pytest.mark.parametrize("parameters", [{}, {"parameters": None}])
def test_tgi_is_told_of_parameters_that_a_function_has_not(parameters: dict[str, Any]) -> None:
    """It refuses functions without; what is no function at all is its own to refuse."""
    given = {"type": "object", "properties": {"a": {"type": "string"}}}
    full = {"type": "function", "function": {"name": "f", "parameters": given}}
    bare = {"type": "function", "function": {"name": "g", **parameters}}
    sent = _sent("tgi", _chat(tools=[full, bare, "h"]))["tools"]
    assert sent[0] == full
    assert sent[1]["function"] == {"name": "g", "parameters": {"type": "object", "properties": {}}}
    assert sent[2] == "h"
    assert _sent("tgi", _chat(tools="f"))["tools"] == "f"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"prompt": "p", "max_tokens": 16}),
        ({"max_tokens": None}, {"prompt": "p", "max_tokens": 16}),
        ({"prompt": ["p"], "max_tokens": 5}, {"prompt": "p", "max_tokens": 5}),
        ({"suffix": "", "max_tokens": 5}, {"prompt": "p", "max_tokens": 5}),
        ({"stop": "x", "top_p": 1, "max_tokens": 5}, {"prompt": "p", "max_tokens": 5, "stop": ["x"]}),
    ],
)
def test_tgi_completions(given: dict[str, Any], sent: dict[str, Any]) -> None:
    """OpenAI's default length is said aloud: TGI would fill the context."""
    assert _sent("tgi", _completion(**given)) == {"model": SERVED, **sent}


def test_tgi_refuses_what_another_engine_can_do() -> None:
    """The flow then asks another replica."""
    with pytest.raises(EndpointNotSupported):
        engine("tgi").to_upstream(request(COMPLETIONS, {"prompt": "p", "logprobs": 1}, needs={"logprobs"}))
    with pytest.raises(EndpointNotSupported):
        engine("tgi").to_upstream(request(Endpoint.TOKENIZE, {"prompt": "p", "add_special_tokens": False}))


def test_tgi_schema_without_schema_is_the_clients_mistake() -> None:
    """Named, as every mistake of a request is."""
    with pytest.raises(RequestError) as raised:
        engine("tgi").to_upstream(_chat(response_format={"type": "json_schema"}))
    assert raised.value.param == "response_format"


@pytest.mark.parametrize(
    ("endpoint", "stream"),
    [
        (Endpoint.GENERATE, False),
        (Endpoint.GENERATE_STREAM, True),
        (Endpoint.GENERATE_ROOT, False),
        (Endpoint.GENERATE_ROOT, True),
    ],
)
def test_tgis_own_requests_pass_untouched(endpoint: Endpoint, stream: bool) -> None:
    """A TGI client that reaches a TGI replica."""
    asked = request(endpoint, b'{"inputs": "p", "parameters": {"top_p": 1}}', stream=stream)
    upstream = engine("tgi").to_upstream(asked)
    assert upstream.body is asked.body
    assert (upstream.path, upstream.streams) == (endpoint.value, stream)


def test_tokenize_in_tgis_words() -> None:
    """A prompt, and a chat."""
    tgi = engine("tgi")
    prompt = tgi.to_upstream(request(Endpoint.TOKENIZE, {"model": "m", "prompt": "p"}))
    assert (prompt.path, prompt.body) == ("/tokenize", b'{"inputs":"p"}')
    chat = tgi.to_upstream(request(Endpoint.TOKENIZE, {"model": "m", "messages": MESSAGES}))
    assert chat.path == "/chat_tokenize"
    assert msgspec.json.decode(chat.body)["messages"] == MESSAGES


# ---- trtllm-serve ----


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"unheard_of": 1, "min_tokens": 3, "metadata": {}}, {"min_tokens": 3}),
        ({"continue_final_message": True, "return_token_ids": True, "request_id": "r"}, {}),
        ({"n": None, "stop": None, "stream_options": None}, {}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"priority": 3, "parallel_tool_calls": False, "suffix": ""}, {}),
        ({"top_logprobs": 0}, {}),
        ({"top_logprobs": 2, "logprobs": True}, {"top_logprobs": 2, "logprobs": True}),
        (
            {"cache_salt": "s", "tools": [{"type": "function"}]},
            {"cache_salt": "s", "tools": [{"type": "function"}]},
        ),
        (
            {"stream": True},
            {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": False}},
        ),
        (
            {"stream": True, "stream_options": {"include_usage": False, "continuous_usage_stats": True}},
            {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ),
    ],
)
def test_trtllm_gets_only_what_it_knows(given: dict[str, Any], sent: dict[str, Any]) -> None:
    """One unknown member would be a 400."""
    assert _sent("trtllm", _chat(**given)) == {"model": SERVED, "messages": MESSAGES, **sent}


def test_trtllm_completions() -> None:
    """Its own members for completions, and OpenAI's default length."""
    asked = _completion(detokenize=False, cache_salt="s", messages=[], logprobs=1)
    assert _sent("trtllm", asked) == {
        "model": SERVED, "prompt": "p", "detokenize": False, "logprobs": 1, "max_tokens": 16,
    }  # fmt: skip


# ---- Triton ----

ENSEMBLE = {"stream": True, "exclude_input_in_output": True, "return_num_input_tokens": True}
ENSEMBLE |= {"return_num_output_tokens": True}
SAMPLED = {"temperature": 1.0, "top_p": 1.0}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"max_tokens": 16, **SAMPLED}),
        ({"temperature": 0}, {"max_tokens": 16, "top_k": 1}),
        ({"temperature": 0.5, "top_p": 0.9}, {"max_tokens": 16, "temperature": 0.5, "top_p": 0.9}),
        ({"stop": "x"}, {"max_tokens": 16, **SAMPLED, "stop_words": ["x"]}),
        ({"stop": ["x", "y"]}, {"max_tokens": 16, **SAMPLED, "stop_words": ["x", "y"]}),
        ({"seed": -1}, {"max_tokens": 16, **SAMPLED, "seed": 2**64 - 1, "random_seed": 2**64 - 1}),
        (
            {"frequency_penalty": 1, "presence_penalty": 2, "repetition_penalty": 1.5, "top_k": 3, "user": "u"},
            {
                "max_tokens": 16, **SAMPLED, "frequency_penalty": 1, "presence_penalty": 2,
                "repetition_penalty": 1.5, "top_k": 3,
            },
        ),
        ({"prompt": ["p"]}, {"max_tokens": 16, **SAMPLED}),
    ],
)  # fmt: skip
def test_triton_ensemble(given: dict[str, Any], sent: dict[str, Any]) -> None:
    """Row by row; OpenAI's defaults are said aloud."""
    assert _sent("triton", _completion(**given)) == {"text_input": "p", **ENSEMBLE, **sent}


def test_triton_llmapi() -> None:
    """The other layout's names, and its finish reason."""
    asked = request(COMPLETIONS, {"prompt": "p", "max_tokens": 5, "stop": "x", "seed": 3}, max_tokens=5)
    assert _sent("triton", asked, model_name="tensorrt_llm") == {
        "text_input": "p",
        "streaming": True,
        "return_finish_reason": True,
        "sampling_param_max_tokens": 5,
        "sampling_param_temperature": 1.0,
        "sampling_param_top_p": 1.0,
        "sampling_param_seed": 3,
        "sampling_param_exclude_input_from_output": True,
        "sampling_param_stop": ["x"],
    }


@pytest.mark.parametrize(
    ("target", "path", "is_llmapi"),
    [
        ({}, "/v2/models/ensemble/generate_stream", False),
        ({"model_name": "tensorrt_llm"}, "/v2/models/tensorrt_llm/generate_stream", True),
        ({"model_name": "tensorrt_llm_bls"}, "/v2/models/tensorrt_llm_bls/generate_stream", False),
        ({"model_name": "a b/c"}, "/v2/models/a%20b%2Fc/generate_stream", False),
        ({"model_name": "mine", "layout": "llmapi"}, "/v2/models/mine/generate_stream", True),
        (
            {"model_name": "tensorrt_llm", "layout": "ensemble"},
            "/v2/models/tensorrt_llm/generate_stream",
            False,
        ),
    ],
)
def test_triton_paths_and_layouts(target: dict[str, str], path: str, is_llmapi: bool) -> None:
    """Always a stream, also for a client that wants its answer whole."""
    upstream = engine("triton", **target).to_upstream(_completion())
    assert (upstream.path, upstream.streams) == (path, True)
    assert ("streaming" in msgspec.json.decode(upstream.body)) is is_llmapi


def test_triton_chats_through_the_models_template() -> None:
    """With one, chats are offered and rendered; a chat may be long, so it gets a limit of its own."""
    triton = engine("triton", chat_template=CHAT_TEMPLATE)
    assert triton.offers == {"completions", "chat"}
    sent = msgspec.json.decode(triton.to_upstream(_chat()).body)
    assert (sent["text_input"], sent["max_tokens"]) == ("<user>Hi!<assistant>", 1024)


def test_triton_without_a_template_says_what_is_missing() -> None:
    """Should a chat ever reach it."""
    with pytest.raises(EndpointNotSupported, match="chat_template"):
        engine("triton").to_upstream(_chat())


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"prompt": [1, 2]}, EndpointNotSupported),
        ({"prompt": ["a", "b"]}, EndpointNotSupported),
        ({"prompt": None}, EndpointNotSupported),
        ({"prompt": "p", "temperature": "hot"}, RequestError),
        ({"prompt": "p", "top_p": True}, RequestError),
        ({"prompt": "p", "stop": [1]}, RequestError),
        ({"prompt": "p", "stop": 7}, RequestError),
    ],
)
def test_triton_refuses_before_it_is_sent(members: dict[str, Any], error: type[Exception]) -> None:
    """A wrong list would be refused anyway, a wrong scalar silently ignored."""
    with pytest.raises(error):
        engine("triton").to_upstream(request(COMPLETIONS, members))


def test_a_broken_template_is_found_when_the_adapter_is_made() -> None:
    """Not when the first chat comes."""
    with pytest.raises(ValueError, match="not valid Jinja"):
        engine("triton", chat_template="{% for %}")
