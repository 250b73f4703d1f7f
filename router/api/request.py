"""What a client asked for, as one value: parsed once, the raw bytes kept."""

import enum
from collections.abc import Mapping

import msgspec


class Endpoint(enum.Enum):
    """The public inference endpoints; the value is the path."""

    # Enum's own `__hash__` and `value` are Python functions, and both are asked for many times a request.
    __hash__ = object.__hash__
    path: str

    def __init__(self, path: str) -> None:
        self.path = path

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"
    RERANK = "/rerank"
    RERANK_V1 = "/v1/rerank"
    SCORE = "/score"
    GENERATE = "/generate"
    GENERATE_STREAM = "/generate_stream"
    GENERATE_ROOT = "/"
    """TGI's old clients post here; whether they want a stream stands in the body."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one answer. `cached_tokens` is None where the engine does not say."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One inference request in the neutral form that routing and engines read.

    `members` are the top-level JSON members with their values still raw, so that a name can be changed
    or a member added without touching the rest. `needs` are the features that an engine must offer
    (see `router.engines.engine.Need`). `public_model` is the name that answers carry.
    """

    id: str
    endpoint: Endpoint
    model: str
    stream: bool
    body: bytes
    members: Mapping[str, msgspec.Raw]
    needs: frozenset[str]
    include_usage: bool = False
    n: int = 1
    max_tokens: int | None = None
    session: str | None = None
    traceparent: str | None = None
    fallback: "InferenceRequest | None" = None
    """The same wish in a form that other engines understand (TGI's `/generate` as a completion)."""
