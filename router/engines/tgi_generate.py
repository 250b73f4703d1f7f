"""TGI's own streams, `/generate_stream`, for clients that speak TGI to a TGI replica.

Events pass as they are. The one with `generated_text` is the last; the end of the body is the end of the
stream, there is no `[DONE]`.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from router.api.request import Usage
from router.engines.engine import Answer, Failure
from router.engines.failures import is_error, malformed, read_error_event, unfinished
from router.engines.sse import FrameSplitter, frame_of, read_event, read_object

_QUIET_HEAD: Final = b'data: {"index":'
_QUIET_TAIL: Final = b',"generated_text":null,"details":null}\n\n'


@dataclass(slots=True)
class GenerateStream:
    """A `StreamReader`."""

    kind: str

    started: bool = field(default=False, init=False)
    done: bool = field(default=False, init=False)
    failure: Failure | None = field(default=None, init=False)
    usage: Usage | None = field(default=None, init=False)
    finish_reason: str | None = field(default=None, init=False)
    pieces: int = field(default=0, init=False)
    _has_text: bool = field(default=False, init=False)
    _splitter: FrameSplitter = field(default_factory=FrameSplitter, init=False)

    def stop_after(self, pieces: int) -> None:
        """TGI's own stream ends with an event that only TGI can make."""

    def feed(self, data: bytes) -> bytes:
        if self.failure is None and not self._has_text and not self._splitter.carry:
            count = _quiet_frames(data)
            if count:
                self.pieces += count
                self.started = True
                return data
        return self._read(self._splitter.feed(data))

    def end(self) -> bytes:
        out = self._read(self._splitter.end())
        if self.failure is None:
            self.done = self._has_text
            self.failure = None if self.done else unfinished()
        return out

    def _read(self, frames: list[bytes]) -> bytes:
        out = b"".join([self._frame(frame) for frame in frames])
        if self._splitter.overflowed and self.failure is None:
            self.failure = malformed("a frame is too long")
        return out

    def _frame(self, frame: bytes) -> bytes:
        event = read_event(frame)
        if event is None or self.failure is not None or self._has_text:
            return b""
        members = read_object(event.data)
        if members is None:
            self.failure = malformed("a frame that is not a JSON object")
        elif is_error(members):
            self.failure = read_error_event(self.kind, members)
        if members is None or self.failure is not None:
            return b""
        self.pieces += 1
        self.started = True
        if members.get("generated_text") is not None:
            self._has_text = True
            self.usage, self.finish_reason = read_details(members.get("details"))
        return frame_of(msgspec.json.encode(members) if b"\n" in event.data else event.data)


def _quiet_frames(data: bytes) -> int:
    """How many events without an end or an error `data` is made of; 0 unless it is whole ones only."""
    count = data.count(_QUIET_TAIL)
    plain = (
        data.startswith(_QUIET_HEAD)
        and data.endswith(_QUIET_TAIL)
        and data.count(_QUIET_TAIL[-2:] + _QUIET_HEAD) == count - 1
        and data.count(b"\n") == 2 * count
        and b"\r" not in data
    )
    return count if plain else 0


def read_details(details: Any) -> tuple[Usage | None, str | None]:
    """Usage and finish reason, in TGI's words, of the `details` that a client may ask for."""
    if not isinstance(details, dict):
        return None, None
    generated, prefill = details.get("generated_tokens"), details.get("prefill")
    prompt = details.get("input_length", len(prefill) if isinstance(prefill, list) else 0)
    usage = Usage(prompt, generated) if isinstance(prompt, int) and isinstance(generated, int) else None
    reason = details.get("finish_reason")
    return usage, reason if isinstance(reason, str) else None


def read_generated(kind: str, body: bytes) -> Answer | Failure:
    """A complete answer of `/generate`, or of `/`, which is a list of one."""
    is_list = body.startswith(b"[") and body.endswith(b"]")
    members = read_object(body[1:-1] if is_list else body)
    if members is None:
        return malformed("an answer that is not a JSON object")
    if is_error(members):
        return read_error_event(kind, members)
    if not isinstance(members.get("generated_text"), str):
        return malformed("an answer without text")
    usage, reason = read_details(members.get("details"))
    return Answer(body, usage, reason)
