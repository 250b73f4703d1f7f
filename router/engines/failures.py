"""Every way an engine says that it failed, turned into one `Failure`.

The status and the wording decide whose fault it was and whether another replica may be asked. What the client
reads is short and gives away no addresses, paths or stack traces.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from router.api.errors import (
    BodyTooLarge,
    ContextLengthExceeded,
    EndpointNotSupported,
    ModelNotFound,
    Overloaded,
    RequestError,
    TurnoutError,
    UpstreamError,
    UpstreamProtocol,
    UpstreamReset,
)
from router.engines.engine import Failure
from router.engines.sse import read_event

MAX_MESSAGE_CHARACTERS: Final = 500
_MAX_READ_BYTES: Final = 65_536
_SATURATED_RETRY_AFTER_S: Final = 1.0

# Matched loosely: the wording moves from release to release, these phrases have stayed.
_CONTEXT_LENGTH: Final = re.compile(
    r"maximum context length|max_model_len"  # vLLM
    r"|`?inputs`? (?:tokens \+ `?max_new_tokens`? must be <=|must have less than)"  # TGI
    r"|max_num_tokens|max_seq_len|max_input_len|maximum input length"  # TensorRT-LLM
    r"|(?:prompt|input|context)\b.{0,60}\b(?:too long|exceeds)",
    re.IGNORECASE,
)
_OVERLOADED: Final = re.compile(
    r"model is overloaded"  # TGI
    r"|currently busy"  # vLLM with --max-num-queued-reqs or --max-num-queued-tokens
    r"|maximum queue size|queue is full",  # Triton
    re.IGNORECASE,
)
_CLIENT_FAULT: Final = re.compile(r"input validation error|template error|tool error", re.IGNORECASE)

_ADDRESS: Final = re.compile(
    r"\b\w+://[^\s'\"<>)]+"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"
    r"|\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\](?::\d+)?"
    r"|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4})?(?![\w:])"
    r"|\b(?:localhost|[\w-]+(?:\.[\w-]+)+):\d{2,5}\b"
)
_PATH: Final = re.compile(r"(?<![\w/])(?:/[\w.@+-]+){2,}")
_FIELD: Final = re.compile(r"[A-Za-z_][\w.\[\]-]{0,99}")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an engine's error says, whichever of the shapes it took."""

    message: str = ""
    type: str = ""
    code: int | None = None
    param: str | None = None


def read_failure(kind: str, status: int, content_type: str, body: bytes) -> Failure:
    """An answer with a status of 400 or more, of an engine of `kind`."""
    return _judge(kind, status, _complaint_of(content_type, body))


def read_error_event(kind: str, members: Mapping[str, Any]) -> Failure:
    """An error object where an answer or a frame should be, under status 200."""
    complaint = _complaint_in(members)
    return _judge(kind, _implied_status(complaint), complaint)


def is_error(members: Mapping[str, Any]) -> bool:
    """Whether an object is an error: nested, a string, or the flat form of older vLLM and trtllm-serve."""
    return (
        members.get("error") is not None or members.get("object") == "error" or members.get("type") == "error"
    )


def unfinished(reason: str | None = None) -> Failure:
    """A stream that ended without an accepted finish reason, or with one that means a broken answer."""
    if reason is None:
        return Failure(UpstreamReset("The replica ended the answer before it was finished."), retry=True)
    return Failure(UpstreamError(f"The replica gave up on the answer: {sanitised(reason)}."), retry=True)


def malformed(what: str) -> Failure:
    """An answer that is not what its engine's dialect says it is."""
    return Failure(UpstreamProtocol(f"The replica's answer was not understood: {what}."), retry=True)


def sanitised(message: str) -> str:
    """One short line without control characters, addresses, file paths or a stack trace."""
    message = message.partition("Traceback (most recent call last)")[0]
    message = _CONTROLS.sub(" ", message[: 8 * MAX_MESSAGE_CHARACTERS])
    message = _PATH.sub("[path]", _ADDRESS.sub("[address]", message)).strip()
    if len(message) > MAX_MESSAGE_CHARACTERS:
        return message[: MAX_MESSAGE_CHARACTERS - 1] + "…"
    return message


# ---- reading ----


def _complaint_of(content_type: str, body: bytes) -> Complaint:
    body = body[:_MAX_READ_BYTES].strip()
    # Triton frames a stream's first answer even when its status says that it failed.
    if event := read_event(body.replace(b"\r\n", b"\n").partition(b"\n\n")[0]):
        body = event.data
    try:
        members = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        is_text = not content_type or content_type.startswith("text/plain")
        return Complaint(body.decode(errors="replace") if is_text else "")
    if isinstance(members, dict):
        return _complaint_in(members)
    return Complaint(members if isinstance(members, str) else "")


def _complaint_in(members: Mapping[str, Any]) -> Complaint:
    """`error` as an object, else as a string, else the flat form, else FastAPI's `detail`."""
    error = members.get("error")
    if isinstance(error, str):
        return Complaint(error, _text(members.get("error_type")))
    source = error if isinstance(error, dict) else members
    message = source.get("message") or members.get("detail") or ""
    code = source.get("code", source.get("http_status_code"))
    param = source.get("param")
    return Complaint(
        message if isinstance(message, str) else msgspec.json.encode(message).decode(),
        _text(source.get("type")),
        code if isinstance(code, int) else None,
        _field(param),
    )


def _field(param: object) -> str | None:
    """A request field's name; vLLM writes where in the body it was, `body.15` for broken JSON."""
    if not isinstance(param, str):
        return None
    name = param.removeprefix("body.")
    return name if _FIELD.fullmatch(name) and name != "body" else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _implied_status(complaint: Complaint) -> int:
    """The status that an error under status 200 would have had.

    TGI says 422 whatever happened, so there the wording decides; without a word for the client's fault it is
    the replica's.
    """
    if complaint.type == "overloaded" or _OVERLOADED.search(complaint.message):
        return 429
    if _CONTEXT_LENGTH.search(complaint.message) or _CLIENT_FAULT.search(complaint.message):
        return 400
    if complaint.type in ("validation", "invalid_request_error", "BadRequestError"):
        return 400
    if complaint.code is not None and 400 <= complaint.code < 600 and complaint.code != 422:
        return complaint.code
    return 500


# ---- judging ----


def _judge(kind: str, status: int, complaint: Complaint) -> Failure:
    if status in (429, 503):
        return _refused(status, complaint)
    if status in (401, 403):
        return Failure(UpstreamError(f"The router's key for a {kind} replica is wrong."), retry=False)
    if status in (404, 405, 501):
        return Failure(_not_here(kind, status, complaint), retry=True)
    if status == 413:
        # The limit is this engine's (TGI: 2 MB); others have a higher one or none.
        return Failure(BodyTooLarge("The request is too large for the engine that it reached."), retry=True)
    # Triton answers 500 to whatever its backend raises, a prompt that is too long too.
    is_too_long = kind == "triton" and _CONTEXT_LENGTH.search(complaint.message) is not None
    if status in (408, 415, 424) or (status >= 500 and not is_too_long):
        return Failure(UpstreamError(_told("The replica failed", complaint)), retry=status != 415)
    return Failure(_client_error(complaint), retry=False)


def _refused(status: int, complaint: Complaint) -> Failure:
    """Full, or not serving: a 503 means full where it says so, else that the engine is dead or scaling."""
    is_full = status == 429 or _OVERLOADED.search(complaint.message) is not None
    message = "The replica is overloaded" if is_full else "The replica is not serving"
    error = Overloaded(_told(message, complaint), retry_after_s=_SATURATED_RETRY_AFTER_S)
    return Failure(error, retry=True, saturated=is_full)


def _not_here(kind: str, status: int, complaint: Complaint) -> TurnoutError:
    if status != 404 or complaint.message in ("", "Not Found"):
        return EndpointNotSupported(f"The {kind} replica does not support this request.")
    return ModelNotFound("The replica does not have the model.", param="model")


def _client_error(complaint: Complaint) -> TurnoutError:
    message = sanitised(complaint.message) or "The engine refused the request."
    if complaint.param in ("input_tokens", "input_text") or _CONTEXT_LENGTH.search(complaint.message):
        return ContextLengthExceeded(message, param=complaint.param)
    return RequestError(message, param=complaint.param)


def _told(what: str, complaint: Complaint) -> str:
    message = sanitised(complaint.message)
    return f"{what}: {message}" if message else f"{what}."
