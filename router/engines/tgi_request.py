"""OpenAI's requests in the words that TGI accepts.

TGI ignores fields that it does not know, but refuses or misreads several standard ones
(router/src/lib.rs and validation.rs of text-generation-inference 3.3).
"""

from typing import Any

import msgspec

from router.api.errors import EndpointNotSupported, RequestError
from router.api.request import Endpoint, InferenceRequest
from router.engines.members import COMPLETION_MAX_TOKENS, model_changes, nulls, value_of, with_changes

_SEEDS = 1 << 64


def chat_body(request: InferenceRequest, served_name: str) -> bytes:
    """The body for TGI's `/v1/chat/completions`."""
    changes = model_changes(request, served_name) | _sampling_changes(request)
    dropped = _dropped(request)
    limit = value_of(request, "max_completion_tokens")
    if limit is not None:
        # One is an alias of the other, and both together are a duplicate field.
        changes["max_tokens"] = limit
        dropped.add("max_completion_tokens")
    if request.stream:
        changes["stream_options"] = {"include_usage": True}
    response_format = value_of(request, "response_format")
    if isinstance(response_format, dict):
        if response_format.get("type") == "json_schema":
            changes["response_format"] = _grammar(response_format)
        elif response_format.get("type") == "text":
            dropped.add("response_format")
    messages = _messages(request)
    if messages is not None:
        changes["messages"] = messages
    tools = value_of(request, "tools")
    if isinstance(tools, list):
        changes["tools"] = list(map(_with_parameters, tools))
    return with_changes(request, changes, dropped)


def completion_body(request: InferenceRequest, served_name: str) -> bytes:
    """The body for TGI's `/v1/completions`. Raises `EndpointNotSupported` where logprobs are wanted."""
    if "logprobs" in request.needs:
        raise EndpointNotSupported("TGI gives no logprobs with completions.", param="logprobs")
    changes = model_changes(request, served_name) | _sampling_changes(request)
    prompt = value_of(request, "prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        changes["prompt"] = prompt[0]
    if value_of(request, "max_tokens") is None:
        changes["max_tokens"] = COMPLETION_MAX_TOKENS
    return with_changes(request, changes, _dropped(request) | {"suffix", "logprobs"})


def tokenize_target(request: InferenceRequest) -> tuple[str, bytes]:
    """Path and body for vLLM's `/tokenize` in either form, prompt or messages.

    Raises `EndpointNotSupported` for a prompt without special tokens, which TGI always adds.
    """
    if "messages" in request.members:
        return "/chat_tokenize", with_changes(request, {}, nulls(request) | {"return_token_strs"})
    if value_of(request, "add_special_tokens") is False:
        raise EndpointNotSupported("TGI adds special tokens always.", param="add_special_tokens")
    return "/tokenize", msgspec.json.encode({"inputs": request.members.get("prompt", msgspec.Raw(b'""'))})


def _dropped(request: InferenceRequest) -> set[str]:
    """What TGI would refuse (nulls, `top_p` of 1) or take for something else (`presence_penalty`).

    It makes a repetition penalty of `presence_penalty + 2`, which ruins the text; without it the penalty
    has no effect.
    """
    dropped = nulls(request) | {"presence_penalty", "logit_bias"}
    top_p = value_of(request, "top_p")
    if isinstance(top_p, int | float) and top_p >= 1:
        dropped.add("top_p")
    return dropped


def _sampling_changes(request: InferenceRequest) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    stop = value_of(request, "stop")
    if isinstance(stop, str):
        changes["stop"] = [stop]
    seed = value_of(request, "seed")
    if isinstance(seed, int) and not 0 <= seed < _SEEDS:
        changes["seed"] = seed % _SEEDS
    return changes


def _grammar(response_format: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's `json_schema` as TGI's `json` grammar: every version with grammars knows that one."""
    described = response_format.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise RequestError("'response_format' lacks 'json_schema.schema'", param="response_format")
    return {"type": "json", "value": schema}


def _with_parameters(tool: Any) -> Any:
    """A tool of a function without parameters, which TGI wants to be told of."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or function.get("parameters") is not None:
        return tool
    return {**tool, "function": {**function, "parameters": {"type": "object", "properties": {}}}}


def _messages(request: InferenceRequest) -> list[Any] | None:
    """Messages changed so that TGI sees their tool calls; None where nothing must change.

    Where a message has `content` and `tool_calls`, TGI reads the content alone, even an empty one.
    """
    if request.endpoint is not Endpoint.CHAT or b'"tool_calls"' not in bytes(request.members["messages"]):
        return None
    return [_with_calls_alone(message) for message in value_of(request, "messages")]


def _with_calls_alone(message: Any) -> Any:
    if not isinstance(message, dict) or not message.get("tool_calls"):
        return message
    return {name: value for name, value in message.items() if name != "content"}
