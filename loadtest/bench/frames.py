"""What a vLLM replica puts on the wire, as bytes made once. Frame shapes follow vLLM 0.27's chat completions.

Each content chunk carries its send time, so that a reader on the same host knows how long it was under way.
"""

import json
import re
import time

JSON_BODY_BYTES = 600
STREAM_ID = "chatcmpl-bench-0000000001"
_CREATED = 1787000000
_SENT_AT = re.compile(rb'"content":"@(\d{16})"')


def now_us() -> int:
    """Microseconds of the host's monotonic clock, which all processes share."""
    return time.monotonic_ns() // 1000


def sent_times_us(data: bytes) -> list[int]:
    """Send times of the content chunks that are whole in these bytes."""
    return [int(stamp) for stamp in _SENT_AT.findall(data)]


def http_chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _event(choices: list[object], **more: object) -> bytes:
    document = {
        "id": STREAM_ID,
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": "m",
        "choices": choices,
    } | more
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def _choice(delta: dict[str, str], finish_reason: str | None = None, **more: object) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason} | more


def stream_start() -> bytes:
    """Response head and the chunk that names the role."""
    head = (
        b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
        b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    role = _event([_choice({"role": "assistant", "content": ""})], prompt_token_ids=None, prompt_text=None)
    return head + http_chunk(role)


def token_template() -> bytes:
    """One content chunk; `% now_us()` completes it. The stamp has 16 digits, so the length never changes."""
    event = _event([_choice({"content": "@0123456789012345"}, token_ids=None)])
    return http_chunk(event.replace(b"%", b"%%")).replace(b"0123456789012345", b"%016d")


def stream_end(usage: bytes) -> bytes:
    """Finish chunk, `usage` (an event or nothing), `[DONE]`, end of body."""
    finish = _event([_choice({"content": ""}, "stop", stop_reason=None, token_ids=None)])
    events = [event for event in (finish, usage, b"data: [DONE]\n\n") if event]
    return b"".join(http_chunk(event) for event in events) + b"0\r\n\r\n"


def usage_event(completion_tokens: int) -> bytes:
    usage = {
        "prompt_tokens": 11,
        "total_tokens": 11 + completion_tokens,
        "completion_tokens": completion_tokens,
    }
    return _event([], usage=usage)


def json_answer() -> bytes:
    """A whole chat completion with head; its body is `JSON_BODY_BYTES` long."""

    def body(content: str) -> bytes:
        message = {"role": "assistant", "content": content, "refusal": None, "reasoning": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
            "token_ids": None,
        }
        document = {
            "id": STREAM_ID,
            "object": "chat.completion",
            "created": _CREATED,
            "model": "m",
            "choices": [choice],
            "usage": {"prompt_tokens": 11, "total_tokens": 27, "completion_tokens": 16},
            "prompt_logprobs": None,
            "kv_transfer_params": None,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    return response(200, body("x" * (JSON_BODY_BYTES - len(body("")))))


def response(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    """A response as uvicorn writes it."""
    reason = {200: "OK", 404: "Not Found", 411: "Length Required"}[status]
    head = (
        f"HTTP/1.1 {status} {reason}\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
        f"content-length: {len(body)}\r\ncontent-type: {content_type}\r\n\r\n"
    )
    return head.encode() + body
