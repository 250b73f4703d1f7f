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
_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])
_PARAMETERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_PARAMETERS: Members = {}


def size_of(request: InferenceRequest, model_cap: int | None = None) -> Size:
    """`model_cap`: the most tokens that the model answers with, where that is known.

    Raises `RequestError` for counts that are none.
    """
    work = _WORK[request.endpoint]
    return Size(
        work,
        len(request.body),
        exact_tokens=_token_ids(request),
        most_output=_most_output(request, model_cap),
        answers=_answers(request) if work == "generate" else 1,
    )


def with_media(size: Size, body: bytes) -> Size:
    """The same, with strings set apart that look like base64 in a body which says that it has some.

    Only whether a prompt can fit at all depends on it, so nobody else need look through the whole body.
    """
    if b"base64" not in body and b"input_audio" not in body:
        return size
    strings = (len(text) for text in body.split(b'"') if len(text) >= _LEAST_MEDIA and b" " not in text)
    return size._replace(media_bytes=sum(strings))


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
