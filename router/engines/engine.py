"""The seams between the flow and an engine's dialect.

An adapter is bound to one replica (its served name, its key) and maps bytes to values; it opens nothing.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from router.api.errors import TurnoutError
from router.api.request import InferenceRequest, Usage

Need = Literal[
    # endpoints
    "chat", "completions", "embeddings", "responses", "messages", "tokenize", "detokenize", "rerank", "score",
    "generate",
    # features of a request that some engine lacks
    "n", "best_of", "logprobs", "prompt_logprobs", "echo", "suffix", "logit_bias", "tools",
    "tool_choice_required", "json_object", "json_schema", "token_prompt", "batch_prompt",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """What an adapter must know of its replica and version.

    `served_name` is the engine's own name for the model, `public_name` the one clients use and see.
    """

    served_name: str
    public_name: str
    model_name: str = ""
    """Triton's model to call (`ensemble`, `tensorrt_llm_bls`, `tensorrt_llm`)."""
    layout: Literal["auto", "ensemble", "llmapi"] = "auto"
    output: Literal["auto", "delta", "cumulative"] = "auto"
    chat_template: str = ""
    """Jinja source; needed where the engine has no chat endpoint (Triton's generate)."""


class UpstreamRequest(msgspec.Struct, frozen=True, gc=False):
    """One POST to a replica. `streams`: the answer is to be read through `Engine.open_stream`."""

    path: str
    body: bytes
    streams: bool
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt gave no answer: what the client sees if nobody else can answer, and what may follow."""

    error: TurnoutError
    retry: bool
    """Another replica may be asked, as long as nothing reached the client."""
    saturated: bool = False
    """The replica is full, not broken: nothing is held against it."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A complete answer in the client's dialect, ready to send as `application/json`."""

    body: bytes
    usage: Usage | None = None
    finish_reason: str | None = None


class StreamReader(Protocol):
    """An upstream stream, turned into whole OpenAI frames as it arrives.

    Frames are held until the first that carries content, a tool call or a finish reason: `started`.
    A call of `feed` or `end` may return the last good frames and set `failure` at once: write, then look.
    After `done` or with `failure` set, nothing more comes out. `usage` and `finish_reason` are filled
    in as they pass; a usage that the client did not ask for is hidden.
    """

    @property
    def started(self) -> bool: ...
    @property
    def done(self) -> bool: ...
    @property
    def failure(self) -> Failure | None: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def pieces(self) -> int:
        """Frames with text so far: a lower bound of the tokens made, for a stream that ends without usage."""
        ...

    def stop_after(self, pieces: int) -> None:
        """Let no more than so many pieces pass, then end the stream with finish reason `length`.

        Where a dialect has no such end it changes nothing.
        """
        ...

    def feed(self, data: bytes) -> bytes:
        """Upstream body bytes, split anywhere, to whole frames for the client (maybe none)."""
        ...

    def end(self) -> bytes:
        """The upstream body ended with correct framing: the last frames, or `failure` is set."""
        ...


class Engine(Protocol):
    """One dialect, bound to one `Target`."""

    @property
    def kind(self) -> str: ...
    @property
    def offers(self) -> frozenset[str]:
        """The `Need`s that it can meet."""
        ...

    @property
    def caches_answers(self) -> bool:
        """Its prefix cache keeps what it generated too, so that the next turn finds it there."""
        ...

    def to_upstream(self, request: InferenceRequest) -> UpstreamRequest:
        """What to send. Raises `TurnoutError` for what only this engine refuses."""
        ...

    def open_stream(self, request: InferenceRequest) -> StreamReader:
        """A reader for the 200 answer of a request with `streams`."""
        ...

    def read_answer(self, request: InferenceRequest, body: bytes) -> Answer | Failure:
        """A complete 200 answer, or the failure that hides in it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """One scrape in the normalised schema: seconds, tokens, 0 to 1. None: the engine does not say.

    Counters are the engine's own running totals; rates are made from two of these by the fleet.
    """

    running_requests: float | None = None
    waiting_requests: float | None = None
    max_running_requests: float | None = None
    kv_usage_ratio: float | None = None
    kv_capacity_tokens: float | None = None
    kv_block_tokens: float | None = None
    prefix_query_tokens: float | None = None
    prefix_hit_tokens: float | None = None
    prefix_hit_ratio: float | None = None
    prefill_tokens: float | None = None
    prefill_tokens_computed: float | None = None
    decode_tokens: float | None = None
    queue_wait_seconds_sum: float | None = None
    queue_wait_count: float | None = None
    batch_utilisation: float | None = None
    gpu_utilisation: float | None = None
    preemptions: float | None = None
    sleeping: bool | None = None
    heartbeat: float | None = None


class Telemetry(Protocol):
    """What an engine says of itself besides answers: where to ask, and how to read it."""

    health_path: str
    metrics_paths: tuple[str, ...]
    """Tried in order until one answers 200 with something readable; the first that does is kept."""

    def load_from(self, path: str, content: bytes) -> ReplicaLoad:
        """One metrics answer. Raises `ValueError` for what is not this engine's metrics."""
        ...
