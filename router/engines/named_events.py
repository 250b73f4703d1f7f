"""Streams of named events: `/v1/responses` and `/v1/messages`.

Their many event types pass as they are; only the model's name, usage, errors and the end are looked at.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from router.api.request import Endpoint, Usage
from router.engines.engine import Failure
from router.engines.failures import is_error, malformed, read_error_event, unfinished
from router.engines.openai_words import read_usage
from router.engines.opening import Opening
from router.engines.sse import DONE, FrameSplitter, frame_of, read_event, read_object

NAMED_EVENTS: Final = frozenset({Endpoint.RESPONSES, Endpoint.MESSAGES})

_ENDS: Final = frozenset({"response.completed", "response.incomplete", "message_stop"})
_BROKEN: Final = frozenset({"response.failed", "error"})
# Without these bytes a frame cannot be an end or an error, and says nothing of usage or the model.
_NOTABLE: Final = re.compile(
    rb"error|response\.(?:completed|incomplete|failed)|message_stop|stop_reason|\"usage\"|\"model\"|\[DONE\]"
)


@dataclass(slots=True)
class NamedEventStream:
    """A `StreamReader` that passes whole frames. The dialect's own last event is the end, not `[DONE]`."""

    kind: str
    public_name: str

    done: bool = field(default=False, init=False)
    failure: Failure | None = field(default=None, init=False)
    usage: Usage | None = field(default=None, init=False)
    finish_reason: str | None = field(default=None, init=False)
    pieces: int = field(default=0, init=False)
    _splitter: FrameSplitter = field(default_factory=FrameSplitter, init=False)
    _opening: Opening = field(default_factory=Opening, init=False)
    _usage_members: dict[str, Any] = field(default_factory=dict, init=False)

    @property
    def started(self) -> bool:
        return self._opening.passed

    def stop_after(self, pieces: int) -> None:
        """These streams have no end that a client would take for one but the engine's own."""

    def feed(self, data: bytes) -> bytes:
        if self._opening.passed and not self._is_over and not self._splitter.carry and self._is_quiet(data):
            self.pieces += _deltas(data)
            return data
        return self._read(self._splitter.feed(data))

    def end(self) -> bytes:
        out = self._read(self._splitter.end())
        if not self._is_over:
            self._fail(unfinished())
        return out

    @property
    def _is_over(self) -> bool:
        return self.done or self.failure is not None

    def _is_quiet(self, data: bytes) -> bool:
        """Whole frames that need no look: every line is an event's name or its one line of data."""
        if not (data.startswith(b"event: ") and data.endswith(b"}\n\n")) or b"\r" in data:
            return False
        frames = data.count(b"}\n\n")
        regular = data.count(b"\n") == 3 * frames and data.count(b"\ndata: {") == frames
        return regular and data.count(b"\n\nevent: ") == frames - 1 and not _NOTABLE.search(data)

    def _read(self, frames: list[bytes]) -> bytes:
        out = []
        for frame in frames:
            if self._is_over:
                break
            out.append(self._frame(frame))
        if self._splitter.overflowed and not self._is_over:
            self._fail(malformed("a frame is too long"))
        return b"".join(out)

    def _frame(self, frame: bytes) -> bytes:
        whole = frame + b"\n\n"
        if self._opening.passed and self._is_quiet(whole):
            self.pieces += _deltas(whole)
            return whole
        event = read_event(frame)
        if event is None or event.data == DONE:
            return b""
        members = read_object(event.data)
        if members is None:
            return self._fail(malformed("an event that is not a JSON object"))
        name = event.name.decode(errors="replace") or str(members.get("type", ""))
        if name in _BROKEN or is_error(members):
            return self._fail(_failure(self.kind, members))
        changed = self._note(members)
        data = msgspec.json.encode(members) if changed or b"\n" in event.data else event.data
        if name in _ENDS:
            self.done = True
        out = (b"event: %b\n" % name.encode() if name else b"") + frame_of(data)
        self.pieces += _deltas(out)
        return self._opening.release(out, carries=self.done or name.endswith("delta"))

    def _note(self, members: dict[str, Any]) -> bool:
        """Take down usage and stop reason; True if the model's name was changed."""
        changed = False
        response = members.get("response")
        for holder in (members, response, members.get("message"), members.get("delta")):
            if not isinstance(holder, dict):
                continue
            if isinstance(holder.get("usage"), dict):
                self._usage_members |= holder["usage"]
                self.usage = read_usage(self._usage_members)
            reason = holder.get("stop_reason" if holder is not response else "status")
            if isinstance(reason, str) and reason != "in_progress":
                self.finish_reason = reason
            if isinstance(holder.get("model"), str) and holder["model"] != self.public_name:
                holder["model"] = self.public_name
                changed = True
        return changed

    def _fail(self, failure: Failure) -> bytes:
        self.failure = failure
        return b""


def _deltas(frames: bytes) -> int:
    return frames.count(b"delta\ndata: ") - frames.count(b"event: message_delta\n")


def _failure(kind: str, members: dict[str, Any]) -> Failure:
    """`response.failed` holds its error in the response, an `error` event has it at the top or nested."""
    response = members.get("response")
    return read_error_event(kind, response if isinstance(response, dict) else members)
