"""trtllm-serve: it refuses every field that it does not know, so only known ones are sent on."""

from dataclasses import dataclass
from typing import Any, Final

from router.api.request import Endpoint, InferenceRequest
from router.engines.engine import Answer, Failure, StreamReader, Target, UpstreamRequest
from router.engines.members import (
    COMPLETION_MAX_TOKENS,
    model_changes,
    nulls,
    streams,
    value_of,
    with_changes,
)
from router.engines.named_events import NAMED_EVENTS, NamedEventStream
from router.engines.openai_answer import read_openai_answer
from router.engines.openai_chunks import Chunks
from router.engines.openai_stream import OpenAIStream
from router.engines.openai_words import stream_options

# tensorrt_llm/serve/openai_protocol.py. Fields that servers before mid-2026 refuse are left out, and
# `priority`, which means the opposite of what it means for vLLM.
_KNOWN: Final = frozenset({
    "model", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty",
    "response_format", "seed", "stop", "stream", "stream_options", "temperature", "top_p", "user",
    "best_of", "use_beam_search", "top_k", "top_p_min", "min_p", "repetition_penalty", "length_penalty",
    "early_stopping", "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens",
    "skip_special_tokens", "spaces_between_special_tokens", "truncate_prompt_tokens", "lora_request",
    "prompt_ignore_length", "add_special_tokens", "echo", "disaggregated_params",
})  # fmt: skip
_KNOWN_BY_ENDPOINT: Final = {
    Endpoint.CHAT: _KNOWN | {
        "messages", "prompt_token_ids", "top_logprobs", "tools", "tool_choice", "reasoning_effort",
        "add_generation_prompt", "documents", "chat_template", "chat_template_kwargs", "cache_salt",
        "mm_processor_kwargs",
    },
    Endpoint.COMPLETIONS: _KNOWN | {"prompt", "detokenize", "return_context_logits"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trtllm:
    """`tool_choice: required` is left out of the offers: most models refuse it."""

    target: Target
    kind: str = "trtllm"
    offers: frozenset[str] = frozenset({
        "chat", "completions", "responses", "messages", "n", "best_of", "logprobs", "echo", "logit_bias",
        "tools", "json_object", "json_schema", "token_prompt", "batch_prompt",
    })  # fmt: skip
    caches_answers: bool = True

    def to_upstream(self, request: InferenceRequest) -> UpstreamRequest:
        changes = model_changes(request, self.target.served_name)
        dropped: set[str] = set()
        known = _KNOWN_BY_ENDPOINT.get(request.endpoint)
        if known is not None:
            changes |= _changes(request)
            dropped = nulls(request) | (request.members.keys() - known)
            if not value_of(request, "logprobs"):
                dropped.add("top_logprobs")  # refused without `logprobs`, even as 0
        body = with_changes(request, changes, dropped - changes.keys())
        return UpstreamRequest(request.endpoint.path, body, streams(request))

    def open_stream(self, request: InferenceRequest) -> StreamReader:
        if request.endpoint in NAMED_EVENTS:
            return NamedEventStream(self.kind, self.target.public_name)
        return OpenAIStream(Chunks(request, self.target.public_name), self.kind)

    def read_answer(self, request: InferenceRequest, body: bytes) -> Answer | Failure:
        return read_openai_answer(request, body, kind=self.kind, public_name=self.target.public_name)


def _changes(request: InferenceRequest) -> dict[str, Any]:
    """Two names of one limit are one too many; stream options mean usage as soon as they are there."""
    changes: dict[str, Any] = {}
    limit = value_of(request, "max_completion_tokens")
    if limit is not None:
        changes["max_tokens"] = limit
    elif request.endpoint is Endpoint.COMPLETIONS and value_of(request, "max_tokens") is None:
        changes["max_tokens"] = COMPLETION_MAX_TOKENS
    if request.stream:
        running = stream_options(request).get("continuous_usage_stats") is True
        # Older servers have running usage on by default.
        changes["stream_options"] = {"include_usage": True, "continuous_usage_stats": running}
    return changes
