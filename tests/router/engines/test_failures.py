"""Every way an engine fails: what the client sees, whether another replica is asked, who is blamed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.api.errors import (
    BodyTooLarge,
    ContextLengthExceeded,
    EndpointNotSupported,
    Fault,
    ModelNotFound,
    Overloaded,
    RequestError,
    TurnoutError,
    UpstreamError,
)
from router.engines.failures import MAX_MESSAGE_CHARACTERS, read_error_event, read_failure, sanitised
from tests.router.engines.making import FIXTURES

KEY, DEAD, GONE = UpstreamError, UpstreamError, EndpointNotSupported

RECORDED: dict[str, dict[str, tuple[type[TurnoutError], bool, bool]]] = {
    "vllm": {
        "context too long": (ContextLengthExceeded, False, False),
        "unknown model": (ModelNotFound, True, False),
        "bad api key": (KEY, False, False),
        "engine dead": (DEAD, True, False),
        "health, engine dead": (Overloaded, True, False),
        "elastic-EP scaling": (Overloaded, True, False),
        "legacy flat shape, 0.10.0 and older": (ModelNotFound, True, False),
    },
    "tgi": {
        "overloaded, not streaming": (Overloaded, True, True),
        "validation, not streaming": (ContextLengthExceeded, False, False),
        "generation, not streaming": (DEAD, True, False),
        "incomplete": (DEAD, True, False),
        "unhealthy": (Overloaded, True, False),
        "bad api key": (KEY, False, False),
        "JSON syntax": (RequestError, False, False),
        "JSON type error (e.g. stop given as a string)": (RequestError, False, False),
        "content type missing": (UpstreamError, False, False),
        "body over payload_limit": (BodyTooLarge, True, False),
    },
    "trtllm": {
        "unknown field (extra=forbid), wrong type": (RequestError, False, False),
        "any exception in the handler, context too long included": (RequestError, False, False),
        "health, dead, newest": (Overloaded, True, False),
    },
    "triton": {
        "unknown model": (ModelNotFound, True, False),
        "model not ready / queue full": (Overloaded, True, True),
        "unknown or missing tensor": (RequestError, False, False),
        "backend error as first response": (DEAD, True, False),
        "streaming asked of a non-decoupled model": (DEAD, True, False),
        "restricted API": (KEY, False, False),
        "wrong method": (GONE, True, False),
    },
}
"""Error class, whether another replica may be asked, whether the replica is only full."""
NOT_AN_ANSWER = {
    "vllm": {"loading", "queue full"},
    "tgi": {"any of overloaded/validation/generation while streaming"},
    "trtllm": {"unknown model", "overloaded", "health, dead, older", "loading"},
    "triton": {"several responses on /generate"},
}
"""Cases without an error status: no answer at all, or a 200, which the stream and answer tests cover."""


def _cases(kind: str) -> dict[str, Any]:
    return {
        case["case"]: case for case in msgspec.json.decode((FIXTURES / kind / "errors.json").read_bytes())
    }


def _wire(case: dict[str, Any]) -> tuple[str, bytes]:
    body = case.get("body")
    content_type = case.get("content_type", "application/json")
    if body is None:
        return content_type, b""
    return content_type, body.encode() if isinstance(body, str) else msgspec.json.encode(body)


@pytest.mark.parametrize("kind", RECORDED)
def test_every_recorded_error_has_a_row(kind: str) -> None:
    """No case of `errors.json` is left out."""
    assert set(_cases(kind)) == RECORDED[kind].keys() | NOT_AN_ANSWER[kind]


@pytest.mark.parametrize(
    ("kind", "case", "wanted"),
    [(kind, case, wanted) for kind, rows in RECORDED.items() for case, wanted in rows.items()],
)
def test_a_recorded_error_is_judged(
    kind: str, case: str, wanted: tuple[type[TurnoutError], bool, bool]
) -> None:
    """Its class, and what may follow."""
    recorded = _cases(kind)[case]
    failure = read_failure(kind, recorded["status"], *_wire(recorded))
    assert (type(failure.error), failure.retry, failure.saturated) == wanted
    assert failure.error.message


REAL_VLLM: dict[str, tuple[type[TurnoutError], bool, bool]] = {
    "unknown model": (ModelNotFound, True, False),
    "prompt too long": (ContextLengthExceeded, False, False),
    "prompt too long, by its characters": (ContextLengthExceeded, False, False),
    "max_tokens beyond the context": (ContextLengthExceeded, False, False),
    "bad JSON": (RequestError, False, False),
    "body is not UTF-8": (RequestError, False, False),
    "wrong type": (RequestError, False, False),
    "unknown path": (EndpointNotSupported, True, False),
    "embeddings of a generating model": (EndpointNotSupported, True, False),
    "wrong method": (EndpointNotSupported, True, False),
    "no key": (UpstreamError, False, False),
    "queue full": (Overloaded, True, True),
    "engine dead": (UpstreamError, True, False),
    "draining": (UpstreamError, True, False),
}


@pytest.mark.parametrize(("case", "wanted"), REAL_VLLM.items())
def test_an_error_of_a_real_vllm_is_judged(case: str, wanted: tuple[type[TurnoutError], bool, bool]) -> None:
    """As vLLM 0.32 answered."""
    recorded = _cases("vllm-recorded")[case]
    failure = read_failure("vllm", recorded["status"], "application/json", recorded["body"].encode())
    assert (type(failure.error), failure.retry, failure.saturated) == wanted


def test_the_field_at_fault_is_named_as_the_client_wrote_it() -> None:
    """vLLM's `body.max_tokens`, and nothing where it is a position."""
    cases = _cases("vllm-recorded")
    params = {
        case: read_failure("vllm", 400, "application/json", cases[case]["body"].encode()).error.param
        for case in ("wrong type", "bad JSON", "body is an array", "temperature below 0")
    }
    assert params == {
        "wrong type": "max_tokens", "bad JSON": None, "body is an array": None,
        "temperature below 0": "temperature",
    }  # fmt: skip


# ---- what the table of the wire reference says, row by row ----


@pytest.mark.parametrize(
    ("kind", "status", "body", "code", "seen", "retry"),
    [
        ("trtllm", 400, b'{"object":"error","message":"no","code":400}', "invalid_request", 400, False),
        ("triton", 400, b'{"error":"no"}', "invalid_request", 400, False),
        ("tgi", 422, b'{"error":"no","error_type":"validation"}', "invalid_request", 400, False),
        ("vllm", 404, b'{"error":{"message":"no"}}', "model_not_found", 404, True),
        ("tgi", 429, b'{"error":"no"}', "overloaded", 503, True),
        ("tgi", 424, b'{"error":"no"}', "upstream_error", 502, True),
        ("vllm", 500, b"", "upstream_error", 502, True),
        ("triton", 500, b'data: {"error":"no"}\n\n', "upstream_error", 502, True),
        ("vllm", 503, b"", "overloaded", 503, True),
        ("vllm", 401, b'{"error":"Unauthorized"}', "upstream_error", 502, False),
        ("vllm", 501, b'{"error":{"message":"no"}}', "endpoint_not_supported", 501, True),
        ("vllm", 502, b"<html>", "upstream_error", 502, True),
        ("vllm", 504, b"", "upstream_error", 502, True),
        ("vllm", 408, b"", "upstream_error", 502, True),
        ("vllm", 418, b"", "invalid_request", 400, False),
    ],
)
def test_a_status_is_judged(kind: str, status: int, body: bytes, code: str, seen: int, retry: bool) -> None:
    """What the client sees and whether it is tried elsewhere."""
    failure = read_failure(kind, status, "", body)
    assert (failure.error.code, failure.error.status, failure.retry) == (code, seen, retry)


@pytest.mark.parametrize(
    ("kind", "code"), [("triton", "context_length_exceeded"), ("vllm", "upstream_error")]
)
def test_triton_answers_500_to_a_prompt_that_is_too_long(kind: str, code: str) -> None:
    """There the wording decides; elsewhere a 500 is the engine's own fault, whatever it mentions."""
    body = b'{"error":"Error generating request: The sum of prompt length (9) should not exceed max_seq_len (8)"}'
    failure = read_failure(kind, 500, "application/json", body)
    assert (failure.error.code, failure.retry) == (code, kind == "vllm")


def test_a_wrong_key_is_the_routers_fault_and_says_so() -> None:
    """The client learns that it is not its own key."""
    failure = read_failure("vllm", 401, "application/json", b'{"error":"Unauthorized"}')
    assert failure.error.message == "The router's key for a vllm replica is wrong."


def test_being_full_is_told_from_being_broken() -> None:
    """A full replica gets a time to come back and no blame."""
    full = read_failure("triton", 503, "application/json", b'{"error":"Exceeds maximum queue size"}')
    assert (full.saturated, full.error.fault, full.error.retry_after_s) == (True, Fault.CAPACITY, 1.0)
    broken = read_failure("triton", 503, "application/json", b'{"error":"model is not ready"}')
    assert broken.saturated is False


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9000",
        "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 512",
        "`inputs` must have less than 4096 tokens. Given: 5000",
        "The sum of prompt length (9000) and max_tokens should not exceed max_num_tokens (8192)",
        "Prompt length (9000) exceeds maximum input length (8192). Set log level to info",
        "prompt is too long",
    ],
)
def test_a_prompt_that_is_too_long_is_recognised(message: str) -> None:
    """In the words of all four engines, with and without a stream."""
    body = msgspec.json.encode({"error": message})
    failure = read_failure("triton", 400, "application/json", body)
    assert failure.error.code == "context_length_exceeded"
    assert read_error_event("triton", {"error": message}).error.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("members", "error", "retry"),
    [
        ({"error": {"message": "x", "type": "InternalServerError", "code": 500}}, UpstreamError, True),
        ({"error": {"message": "x", "type": "BadRequestError", "code": 400}}, RequestError, False),
        ({"error": {"message": "x", "code": "server_error"}}, UpstreamError, True),
        ({"error": {"message": "Model is overloaded", "http_status_code": 422}}, Overloaded, True),
        ({"error": {"message": "engine trouble", "http_status_code": 422}}, UpstreamError, True),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, Overloaded, True),
        ({"error": "x", "error_type": "validation"}, RequestError, False),
        ({"error": "x", "error_type": "generation"}, UpstreamError, True),
        ({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}, RequestError, False),
        ({"type": "error", "error": {"type": "api_error", "message": "x"}}, UpstreamError, True),
        ({"error": {"message": "The engine is currently busy", "code": 503}}, Overloaded, True),
        ({"detail": "x"}, UpstreamError, True),
        ({"error": {"message": ["x"]}}, UpstreamError, True),
        ({"error": {}}, UpstreamError, True),
        ({"error": 7}, UpstreamError, True),
    ],
)
def test_an_error_under_status_200_is_judged(
    members: dict[str, Any], error: type[TurnoutError], retry: bool
) -> None:
    """All shapes: nested, a string, flat, FastAPI's, and none."""
    failure = read_error_event("vllm", members)
    assert (type(failure.error), failure.retry) == (error, retry)


# ---- what the client may read ----


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("connect to http://10.0.0.7:8000/v1 failed", "connect to [address] failed"),
        ("peer 10.0.0.7:8000 is gone", "peer [address] is gone"),
        ("peer [fd00::1]:8000 is gone", "peer [address] is gone"),
        ("peer fd00:1:2:3:4:5:6:7 is gone", "peer [address] is gone"),
        ("worker-3.ml.svc:8000 refused", "[address] refused"),
        ("localhost:8000 refused", "[address] refused"),
        ("in /usr/lib/python3/site-packages/vllm/x.py line 7", "in [path] line 7"),
        ("a\x00b\r\nc\u2028d", "a b c d"),
        ("boom\nTraceback (most recent call last):\n  File x", "boom"),
        ("need 3/4 of it, or 1:30 hours, version 0.27.0", "need 3/4 of it, or 1:30 hours, version 0.27.0"),
        ("x" * 600, "x" * 499 + "…"),
    ],
)
def test_messages_are_short_and_give_nothing_away(said: str, heard: str) -> None:
    """No addresses, paths, control characters or stack traces."""
    assert sanitised(said) == heard


@settings(deadline=None)
@given(
    st.integers(400, 599),
    st.sampled_from(["", "text/plain", "application/json", "text/html"]),
    st.one_of(
        st.binary(max_size=100),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=20),
            lambda inner: (
                st.dictionaries(
                    st.sampled_from(["error", "message", "detail", "object", "type", "code", "param"]), inner
                )
                | st.lists(inner, max_size=3)
            ),
            max_leaves=8,
        ).map(msgspec.json.encode),
    ),
)
def test_any_error_body_becomes_a_failure(status: int, content_type: str, body: bytes) -> None:
    """Never an exception, always a short message and a client's shape of error."""
    failure = read_failure("vllm", status, content_type, body)
    assert len(failure.error.message) <= MAX_MESSAGE_CHARACTERS + 40
    assert set(msgspec.json.decode(failure.error.body())["error"]) == {"message", "type", "param", "code"}


def test_a_deep_or_huge_error_body_is_survived() -> None:
    """A replica's error page may be anything."""
    for body in (b"[" * 100_000, b'{"error":' * 3000, b"x" * 10_000_000):
        assert read_failure("tgi", 500, "application/json", body).error.code == "upstream_error"
