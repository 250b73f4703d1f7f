"""Requests, readers and what they make of a stream, for the tests of the engines."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from router.api.request import Endpoint, InferenceRequest, Usage
from router.engines import ENGINES
from router.engines.engine import Engine, StreamReader, Target
from router.engines.triton import Triton

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines"
SERVED, PUBLIC = "demo-8b", "llama-8b"
NOW = 1787000000
CHAT_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def request(
    endpoint: Endpoint = Endpoint.CHAT,
    members: dict[str, Any] | bytes | None = None,
    *,
    needs: Iterable[str] = (),
    **facts: Any,
) -> InferenceRequest:
    """As `router.api` would read it; `members` is the client's body, a stream unless it says otherwise."""
    if members is None:
        members = {"model": PUBLIC, "messages": [{"role": "user", "content": "Hi!"}], "stream": True}
    body = members if isinstance(members, bytes) else msgspec.json.encode(members)
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    model = msgspec.json.decode(raw["model"]) if "model" in raw else PUBLIC
    facts = {"id": "req-7", "model": model, "stream": bytes(raw.get("stream", b"")) == b"true", **facts}
    return InferenceRequest(endpoint=endpoint, body=body, members=raw, needs=frozenset(needs), **facts)


def engine(kind: str, **target: Any) -> Engine:
    """An adapter whose replica calls the model `demo-8b`, and whose clock stands still."""
    bound = Target(**{"served_name": SERVED, "public_name": PUBLIC, **target})
    return Triton(bound, clock=lambda: NOW + 0.5) if kind == "triton" else ENGINES[kind](bound)


class Seen(NamedTuple):
    """All that a reader tells of a stream."""

    out: bytes
    started: bool
    done: bool
    usage: Usage | None
    finish_reason: str | None
    pieces: int
    failure: tuple[str, str, bool, bool] | None
    """Code, message, retry, saturated."""


def read(reader: StreamReader, pieces: Iterable[bytes], *, ends: bool = True) -> Seen:
    """Feed the pieces, and end the body."""
    out = b"".join([reader.feed(piece) for piece in pieces])
    if ends:
        out += reader.end()
    failure = reader.failure
    told = None
    if failure is not None:
        told = (failure.error.code, failure.error.message, failure.retry, failure.saturated)
    return Seen(out, reader.started, reader.done, reader.usage, reader.finish_reason, reader.pieces, told)


def frames(*payloads: bytes | dict[str, Any]) -> bytes:
    """An event stream of these."""
    encoded = [one if isinstance(one, bytes) else msgspec.json.encode(one) for one in payloads]
    return b"".join([b"data: %b\n\n" % one for one in encoded])


def delta_chunk(text: str, *, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chat chunk as vLLM sends it."""
    return {
        "id": "chatcmpl-req-7-1",
        "object": "chat.completion.chunk",
        "created": NOW,
        "model": SERVED,
        "choices": [{"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": finish}],
        **more,
    }
