"""TGI's own dialect, for its clients: `/generate`, `/generate_stream` and `/`, over every engine.

A TGI replica gets the request as it came. For other engines it becomes a completion, and the
completion's answer becomes TGI's (text-generation-inference 3.3: docs/openapi.json).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from router.api.errors import RequestError, TurnoutError
from router.api.members import Members, read_members, write_members
from router.api.openai import (
    RequestRules,
    read_count,
    read_model,
    read_session,
    read_stream_flag,
    require_json,
)
from router.api.request import Endpoint, InferenceRequest, Usage
from router.engines.engine import Answer, Failure, StreamReader
from router.engines.failures import malformed
from router.engines.sse import DONE, frame_of, read_event

DEFAULT_NEW_TOKENS = 1024
"""TGI generates this much before it queues a request again; other engines need a number."""

_COPIED = {
    "frequency_penalty": "frequency_penalty",
    "max_new_tokens": "max_tokens",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
_WITHOUT_EFFECT = frozenset({"details", "do_sample", "return_full_text"})
_NEUTRAL = {"temperature": 1.0, "top_k": 0.0, "top_p": 1.0}
"""Where these mean nothing. Anywhere else TGI samples, told to or not (its `has_warpers`)."""
_FINISH_REASONS = {"stop": "eos_token", "length": "length"}
_ERROR_TYPES = {400: "validation", 413: "validation", 422: "validation", 429: "overloaded", 503: "overloaded"}


def read_generate(
    endpoint: Endpoint,
    call_id: str,
    headers: Mapping[str, str],
    body: bytes,
    rules: RequestRules,
    only_model: str | None,
) -> InferenceRequest:
    """A request in TGI's dialect, which names no model: `only_model` is meant, or a `model` member says.

    Raises `RequestError` or `UnsupportedMediaType`.
    """
    require_json(headers)
    members = read_members(body, rules.max_depth)
    _read_inputs(members)
    model = read_model(members) if "model" in members or only_model is None else only_model
    is_root = endpoint is Endpoint.GENERATE_ROOT
    request = InferenceRequest(
        id=call_id,
        endpoint=endpoint,
        model=model,
        stream=endpoint is Endpoint.GENERATE_STREAM or (is_root and read_stream_flag(members)),
        body=body,
        members=members,
        needs=frozenset({"generate"}),
        session=read_session(headers, members),
    )
    return replace(request, fallback=_as_completion(request))


def _read_inputs(members: Members) -> str:
    try:
        return msgspec.json.decode(members.get("inputs", b""), type=str)
    except msgspec.MsgspecError:
        raise RequestError("'inputs' must be a string", param="inputs") from None


def _parameters(members: Members) -> dict[str, msgspec.Raw]:
    raw = members.get("parameters")
    if raw is None:
        return {}
    try:
        given = msgspec.json.decode(raw, type=dict[str, msgspec.Raw] | None) or {}
    except msgspec.MsgspecError:
        raise RequestError("'parameters' must be an object", param="parameters") from None
    return {name: value for name, value in given.items() if bytes(value) != b"null"}


def _as_completion(request: InferenceRequest) -> InferenceRequest | None:
    """The same wish as a completion; None where only TGI can grant it (grammars, watermarks, best of)."""
    parameters = _parameters(request.members)
    for name, value in parameters.items():
        if name not in _COPIED and name not in _WITHOUT_EFFECT and bytes(value) not in (b"false", b"0", b"1"):
            return None
    members: dict[str, msgspec.Raw | bytes] = {
        "model": msgspec.json.encode(request.model),
        "prompt": request.members["inputs"],
        "max_tokens": b"%d" % DEFAULT_NEW_TOKENS,
        "temperature": b"1.0",
    }
    members |= {_COPIED[name]: value for name, value in parameters.items() if name in _COPIED}
    if not _samples(parameters):
        members["temperature"] = b"0"
    if request.stream:
        members["stream"] = b"true"
        members["stream_options"] = b'{"include_usage":true}'
    body = write_members(members)
    return replace(
        request,
        endpoint=Endpoint.COMPLETIONS,
        body=body,
        members={name: msgspec.Raw(value) for name, value in members.items()},
        needs=frozenset({"completions"}),
        include_usage=True,
        max_tokens=read_count(parameters, "max_new_tokens") or DEFAULT_NEW_TOKENS,
    )


def _samples(parameters: Members) -> bool:
    """Whether TGI would sample; it decodes greedily unless something asks for it."""
    moved = [
        _read_number(parameters, name) != neutral for name, neutral in _NEUTRAL.items() if name in parameters
    ]
    return any(moved) or bytes(parameters.get("do_sample", b"")) == b"true"


def _read_number(parameters: Members, name: str) -> float:
    try:
        return msgspec.json.decode(parameters[name], type=float)
    except msgspec.MsgspecError:
        raise RequestError(f"'{name}' must be a number", param=name) from None


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the client wants to see in its answer."""

    prompt: str
    details: bool
    full_text: bool
    """The prompt too; `/` means it where nothing is said, as TGI does for models tagged `text-generation`."""

    @classmethod
    def of(cls, request: InferenceRequest) -> "_Wish":
        parameters = _parameters(request.members)
        unsaid = b"true" if request.endpoint is Endpoint.GENERATE_ROOT else b"false"
        return cls(
            prompt=_read_inputs(request.members),
            details=bytes(parameters.get("details", b"")) == b"true",
            full_text=bytes(parameters.get("return_full_text", unsaid)) == b"true",
        )

    def text(self, generated: str) -> str:
        return self.prompt + generated if self.full_text else generated


class _Text(msgspec.Struct):
    text: str


class _Tokens(msgspec.Struct):
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: Annotated[list[_Text], msgspec.Meta(min_length=1)]
    usage: _Tokens | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Text]


def translate_answer(original: InferenceRequest, answer: Answer) -> Answer | Failure:
    """A completion's answer as TGI's `/generate` gives it; at `/` it is a list of one."""
    wish = _Wish.of(original)
    try:
        completion = msgspec.json.decode(answer.body, type=_Completion)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return malformed("a completion without text")
    generated: dict[str, Any] = {"generated_text": wish.text(completion.choices[0].text)}
    if wish.details:
        usage = completion.usage or _Tokens()
        generated["details"] = {
            "finish_reason": _FINISH_REASONS.get(answer.finish_reason or "stop", "eos_token"),
            "generated_tokens": usage.completion_tokens,
            "seed": None,
            "prefill": [],
            "tokens": [],
        }
    is_root = original.endpoint is Endpoint.GENERATE_ROOT
    return replace(answer, body=msgspec.json.encode([generated] if is_root else generated))


class GenerateReader:
    """A completion's stream as TGI's `generate_stream` gives it: one event a piece, no `[DONE]`.

    Other engines do not say token ids: they are given as 0. The last event stands for the end token and
    carries the whole text, as TGI's does.
    """

    def __init__(self, original: InferenceRequest, inner: StreamReader) -> None:
        self._wish = _Wish.of(original)
        self._inner = inner
        self._texts: list[str] = []
        self.started = False
        self.done = False
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self.finish_reason: str | None = None

    @property
    def pieces(self) -> int:
        return len(self._texts)

    def stop_after(self, pieces: int) -> None:
        self._inner.stop_after(pieces)

    def feed(self, data: bytes) -> bytes:
        return self._translated(self._inner.feed(data))

    def end(self) -> bytes:
        return self._translated(self._inner.end())

    def _translated(self, frames: bytes) -> bytes:
        if self.failure is not None:
            return b""
        inner = self._inner
        try:
            events = b"".join([self._event(piece) for piece in _pieces(frames)])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.failure = malformed("a chunk without text")
            return b""
        self.failure, self.usage, self.finish_reason = inner.failure, inner.usage, inner.finish_reason
        if inner.done and not self.done and self.failure is None:
            self.done = True
            events += self._last_event()
        self.started = self.started or bool(events)
        return events

    def _event(self, piece: str) -> bytes:
        self._texts.append(piece)
        return self._frame(piece, special=False, generated_text=None, details=None)

    def _last_event(self) -> bytes:
        usage = self.usage or Usage(0, len(self._texts))
        details: dict[str, Any] | None = None
        if self._wish.details:
            details = {
                "finish_reason": _FINISH_REASONS.get(self.finish_reason or "stop", "eos_token"),
                "generated_tokens": usage.completion_tokens,
                "seed": None,
                "input_length": usage.prompt_tokens,
            }
        text = self._wish.text("".join(self._texts))
        return self._frame("", special=True, generated_text=text, details=details)

    def _frame(
        self, piece: str, *, special: bool, generated_text: str | None, details: dict[str, Any] | None
    ) -> bytes:
        event = {
            "index": len(self._texts) + special,
            "token": {"id": 0, "text": piece, "logprob": None, "special": special},
            "generated_text": generated_text,
            "details": details,
        }
        return frame_of(msgspec.json.encode(event))


def _pieces(frames: bytes) -> list[str]:
    """The texts in whole, normalised completion frames. Raises what msgspec does for others."""
    pieces: list[str] = []
    for frame in frames.split(b"\n\n"):
        event = read_event(frame)
        if event is not None and event.data != DONE:
            chunk = msgspec.json.decode(event.data, type=_Chunk)
            pieces += [choice.text for choice in chunk.choices if choice.text]
    return pieces


def generate_error(error: TurnoutError) -> bytes:
    """The contract's error object, with the `error_type` beside it that TGI's clients look for."""
    body = msgspec.json.decode(error.body())
    return msgspec.json.encode({**body, "error_type": _ERROR_TYPES.get(error.status, "generation")})
