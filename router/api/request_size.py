"""How large a request is, for limits: everything in it that makes an engine work more.

What is missed here would be used without being reserved, so every endpoint has a row.
"""

from collections.abc import Mapping

import msgspec

from policies.limits.usage import Size, Work
from router.api.members import Members
from router.api.openai import read_count
from router.api.request import Endpoint, InferenceRequest

_WORK: Mapping[Endpoint, Work] = {
    Endpoint.CHAT: "generate",
    Endpoint.COMPLETIONS: "generate",
    Endpoint.RESPONSES: "generate",
    Endpoint.MESSAGES: "generate",
    Endpoint.GENERATE: "generate",
    Endpoint.GENERATE_STREAM: "generate",
    Endpoint.GENERATE_ROOT: "generate",
    Endpoint.EMBEDDINGS: "encode",
    Endpoint.RERANK: "encode",
    Endpoint.RERANK_V1: "encode",
    Endpoint.SCORE: "encode",
    Endpoint.TOKENIZE: "none",
    Endpoint.DETOKENIZE: "none",
}
_GENERATE = frozenset({Endpoint.GENERATE, Endpoint.GENERATE_STREAM, Endpoint.GENERATE_ROOT})
_PROMPTS: Mapping[Endpoint, str] = {Endpoint.COMPLETIONS: "prompt", Endpoint.EMBEDDINGS: "input"}
_LEAST_MEDIA = 1024
MEDIA_BYTES = 4096
"""What a picture or a sound counts for: as much as a text of some thousand tokens, whatever its own size."""
_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])
_PARAMETERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_PARAMETERS: Members = {}


def size_of(request: InferenceRequest, model_cap: int | None = None) -> Size:
    """`model_cap`: the most tokens that the model answers with, where that is known.

    Raises `RequestError` for counts that are none.
    """
    if request.endpoint is Endpoint.CHAT:
        most = _least(request.max_tokens, model_cap)
        return Size("generate", _prompt_bytes(request.body), 0, most, request.n)
    work = _WORK[request.endpoint]
    return Size(
        work,
        _prompt_bytes(request.body),
        exact_tokens=_token_ids(request),
        most_output=_most_output(request, model_cap),
        answers=_answers(request) if work == "generate" else 1,
    )


def _prompt_bytes(body: bytes) -> int:
    """Of `body`, with `MEDIA_BYTES` for each string that looks like base64, if it says that it has some."""
    if len(body) < _LEAST_MEDIA or (b"base64" not in body and b"input_audio" not in body):
        return len(body)
    media = [len(text) for text in body.split(b'"') if len(text) >= _LEAST_MEDIA and b" " not in text]
    return len(body) - sum(media) + MEDIA_BYTES * len(media)


def _token_ids(request: InferenceRequest) -> int:
    """How many, where a prompt or several are given as token ids; else 0."""
    name = _PROMPTS.get(request.endpoint)
    raw = b"" if name is None else request.members.get(name, b"")
    if bytes(memoryview(raw)[:1]) != b"[":
        return 0
    text = bytes(raw)
    within = text.lstrip(b"[ \t\r\n")
    # A comma stands between two numbers, also where these are of two lists.
    return text.count(b",") + 1 if within[:1].isdigit() else 0


def _most_output(request: InferenceRequest, model_cap: int | None) -> int | None:
    asked = request.max_tokens
    if request.endpoint in _GENERATE:
        fallback = request.fallback
        asked = (
            read_count(_parameters(request), "max_new_tokens") if fallback is None else fallback.max_tokens
        )
    return _least(asked, model_cap)


def _least(asked: int | None, model_cap: int | None) -> int | None:
    if asked is None or model_cap is None:
        return model_cap if asked is None else asked
    return min(asked, model_cap)


def _answers(request: InferenceRequest) -> int:
    """An engine that is asked for the best of several generates them all, and for every prompt."""
    if request.endpoint in _GENERATE:
        # Only TGI does it, so there is no fallback.
        return 1 if request.fallback is not None else read_count(_parameters(request), "best_of") or 1
    each = request.n
    if "best_of" in request.needs:
        each = max(each, read_count(request.members, "best_of") or 1)
    if "batch_prompt" in request.needs:
        each *= len(_ENTRIES.decode(request.members["prompt"]))
    return each


def _parameters(request: InferenceRequest) -> Members:
    raw = request.members.get("parameters")
    return _NO_PARAMETERS if raw is None or raw == msgspec.Raw(b"null") else _PARAMETERS.decode(raw)
