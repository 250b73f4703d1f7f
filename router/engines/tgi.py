"""Hugging Face's text-generation-inference: its OpenAI endpoints, and its own for clients that speak it."""

from dataclasses import dataclass

import msgspec

from router.api.request import Endpoint, InferenceRequest
from router.engines.engine import Answer, Failure, StreamReader, Target, UpstreamRequest
from router.engines.failures import malformed
from router.engines.members import streams, value_of
from router.engines.openai_answer import read_openai_answer
from router.engines.openai_chunks import Chunks
from router.engines.openai_stream import OpenAIStream
from router.engines.tgi_generate import GenerateStream, read_generated
from router.engines.tgi_request import chat_body, completion_body, tokenize_target

NATIVE_ENDPOINTS = frozenset({Endpoint.GENERATE, Endpoint.GENERATE_STREAM, Endpoint.GENERATE_ROOT})


@dataclass(frozen=True, slots=True)
class Tgi:
    """One choice and one text prompt a request.

    `json_object` is left out of the offers: TGI needs a schema with properties. `served_name` names a LoRA
    adapter, or the base model.
    """

    target: Target
    kind: str = "tgi"
    offers: frozenset[str] = frozenset({
        "chat", "completions", "generate", "tokenize", "logprobs", "tools", "tool_choice_required",
        "json_schema",
    })  # fmt: skip
    caches_answers: bool = False
    """Its allocator keeps the prompt's blocks and frees the others (backends/v3/src/radix.rs)."""

    def to_upstream(self, request: InferenceRequest) -> UpstreamRequest:
        path, body = request.endpoint.path, request.body
        if request.endpoint is Endpoint.CHAT:
            body = chat_body(request, self.target.served_name)
        elif request.endpoint is Endpoint.COMPLETIONS:
            body = completion_body(request, self.target.served_name)
        elif request.endpoint is Endpoint.TOKENIZE:
            path, body = tokenize_target(request)
        return UpstreamRequest(path, body, streams(request))

    def open_stream(self, request: InferenceRequest) -> StreamReader:
        if request.endpoint in NATIVE_ENDPOINTS:
            return GenerateStream(self.kind)
        return OpenAIStream(Chunks(request, self.target.public_name, infers_tool_calls=True), self.kind)

    def read_answer(self, request: InferenceRequest, body: bytes) -> Answer | Failure:
        if request.endpoint in NATIVE_ENDPOINTS:
            return read_generated(self.kind, body)
        if request.endpoint is Endpoint.TOKENIZE:
            return _tokens(request, body)
        return read_openai_answer(
            request, body, kind=self.kind, public_name=self.target.public_name, infers_tool_calls=True
        )


class _Token(msgspec.Struct):
    id: int
    text: str


class _ChatTokens(msgspec.Struct):
    tokenize_response: list[_Token]


def _tokens(request: InferenceRequest, body: bytes) -> Answer | Failure:
    """TGI's tokens in the shape of vLLM's `/tokenize`; TGI does not say how many a prompt may have."""
    try:
        answer = msgspec.json.decode(body, type=list[_Token] | _ChatTokens)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return malformed("tokens in an unknown shape")
    tokens = answer.tokenize_response if isinstance(answer, _ChatTokens) else answer
    strings = [token.text for token in tokens] if value_of(request, "return_token_strs") else None
    ids = [token.id for token in tokens]
    return Answer(
        msgspec.json.encode({"count": len(ids), "max_model_len": None, "tokens": ids, "token_strs": strings})
    )
