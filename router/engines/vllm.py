"""vLLM's OpenAI server: the model's name is translated and usage asked for; all else is its own."""

from dataclasses import dataclass

from router.api.request import InferenceRequest
from router.engines.engine import Answer, Failure, StreamReader, Target, UpstreamRequest
from router.engines.members import model_changes, streams, usage_changes, with_changes
from router.engines.named_events import NAMED_EVENTS, NamedEventStream
from router.engines.openai_answer import read_openai_answer
from router.engines.openai_chunks import Chunks
from router.engines.openai_stream import OpenAIStream


@dataclass(frozen=True, slots=True)
class Vllm:
    """Everything but TGI's native dialect, and `best_of`, which it accepts and ignores (0.32)."""

    target: Target
    kind: str = "vllm"
    offers: frozenset[str] = frozenset({
        "chat", "completions", "embeddings", "responses", "messages", "tokenize", "detokenize", "rerank",
        "score", "n", "logprobs", "prompt_logprobs", "echo", "suffix", "logit_bias", "tools",
        "tool_choice_required", "json_object", "json_schema", "token_prompt", "batch_prompt",
    })  # fmt: skip
    caches_answers: bool = True

    def to_upstream(self, request: InferenceRequest) -> UpstreamRequest:
        changes = model_changes(request, self.target.served_name) | usage_changes(request)
        return UpstreamRequest(request.endpoint.path, with_changes(request, changes), streams(request))

    def open_stream(self, request: InferenceRequest) -> StreamReader:
        if request.endpoint in NAMED_EVENTS:
            return NamedEventStream(self.kind, self.target.public_name)
        return OpenAIStream(Chunks(request, self.target.public_name), self.kind)

    def read_answer(self, request: InferenceRequest, body: bytes) -> Answer | Failure:
        return read_openai_answer(request, body, kind=self.kind, public_name=self.target.public_name)
