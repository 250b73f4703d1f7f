"""vLLM's embeddings, scores and rankings: deterministic numbers of the texts, without the engine's time.

Vectors have length one; a score is the cosine of two vectors, moved to 0..1.
"""

import math
import struct
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from loadtest.engine.chat_template import content_text
from loadtest.engine.dialect import Reply, Request, Response
from loadtest.engine.tokens import encode
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_chat import prompt_text
from loadtest.engine.vllm_completions import prompts_of
from loadtest.engine.vllm_errors import bad_request
from loadtest.engine.vllm_request import ChatRequest


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    input: str | list[str | int | list[int]] | None = None
    messages: list[dict[str, Any]] | None = None
    encoding_format: str = "float"
    dimensions: int | None = None


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]]
    top_n: int = 0


class PoolingEndpoint:
    """`/v1/embeddings`, `/score`, `/rerank`."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def embeddings(self, request: Request) -> Reply:
        wanted = decode_body(request, EmbeddingRequest)
        self._base.lora_of(wanted.model)
        if wanted.encoding_format not in ("float", "base64"):
            raise bad_request(f"unknown encoding_format {wanted.encoding_format!r}", "encoding_format")
        size = wanted.dimensions or self._base.flags.embedding_size
        if size < 1:
            raise bad_request("dimensions must be positive", "dimensions")
        prompts = self._prompts(wanted)
        vectors = [embedding(prompt, size) for prompt in prompts]
        encoded = [_base64(one) for one in vectors] if wanted.encoding_format == "base64" else vectors
        data = [
            {"index": index, "object": "embedding", "embedding": one} for index, one in enumerate(encoded)
        ]
        return Response.of_json(self._listed(request, wanted.model, data, prompts))

    def _prompts(self, wanted: EmbeddingRequest) -> list[list[int]]:
        if wanted.messages is not None:
            chat = ChatRequest(messages=wanted.messages, add_generation_prompt=False)
            return [encode(prompt_text(chat))]
        return prompts_of(wanted.input)

    async def score(self, request: Request) -> Reply:
        wanted = decode_body(request, ScoreRequest)
        self._base.lora_of(wanted.model)
        first = _texts(wanted.text_1 if wanted.text_1 is not None else wanted.queries)
        second = _texts(wanted.text_2 if wanted.text_2 is not None else wanted.documents)
        if not first or not second or len(first) not in (1, len(second)):
            raise bad_request("Input lengths must be either 1:1, 1:N or N:N")
        pairs = list(zip(first * len(second) if len(first) == 1 else first, second, strict=True))
        data = [
            {"index": index, "object": "score", "score": similarity(*pair)}
            for index, pair in enumerate(pairs)
        ]
        prompts = [encode(one) + encode(other) for one, other in pairs]
        return Response.of_json(self._listed(request, wanted.model, data, prompts))

    async def rerank(self, request: Request) -> Reply:
        wanted = decode_body(request, RerankRequest)
        self._base.lora_of(wanted.model)
        if not wanted.documents:
            raise bad_request("documents must not be empty", "documents")
        query = _document_text(wanted.query)
        texts = [_document_text(document) for document in wanted.documents]
        results = [
            {
                "index": index,
                "document": {"text": text, "multi_modal": None},
                "relevance_score": similarity(query, text),
            }
            for index, text in enumerate(texts)
        ]
        results.sort(key=lambda result: (-float(str(result["relevance_score"])), str(result["index"])))
        tokens = sum(len(encode(query)) + len(encode(text)) for text in texts)
        return Response.of_json(
            {
                "id": self._own_id(request, "rerank"),
                "model": wanted.model or self._base.options.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                "results": results[: wanted.top_n or len(results)],
            }
        )

    def _listed(
        self, request: Request, model: str | None, data: Sequence[Any], prompts: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        tokens = sum(map(len, prompts))
        return {
            "id": self._own_id(request, "embd"),
            "object": "list",
            "created": int(time.time()),
            "model": model or self._base.options.model,
            "data": data,
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
                "completion_tokens_details": None,
            },
        }

    def _own_id(self, request: Request, prefix: str) -> str:
        return f"{prefix}-{self._base.own_id(request)}"


def embedding(token_ids: Sequence[int], size: int) -> list[float]:
    """A vector of length one. Texts with common tokens point in similar directions."""
    values = [0.0] * size
    for token in token_ids:
        state = token * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        values[state % size] += 1.0 if state >> 63 else -1.0
        values[(state >> 20) % size] += 0.5
    norm = math.hypot(*values)
    return [value / norm for value in values] if norm else [1.0] + [0.0] * (size - 1)


def similarity(one: str, other: str) -> float:
    """0 to 1; 1 for equal texts."""
    first, second = embedding(encode(one), 256), embedding(encode(other), 256)
    cosine = sum(a * b for a, b in zip(first, second, strict=True))
    return min(1.0, max(0.0, (1 + cosine) / 2))


def _base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients decode them."""
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _texts(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _document_text(document: str | dict[str, Any]) -> str:
    if isinstance(document, str):
        return document
    return content_text(document.get("content") or document.get("text") or "")
