"""Reading streams of chunks for OpenAI clients: chat and completions of every engine.

Frames that add text and nothing else take the quiet way, a few byte operations each; all others are decoded,
judged and set right. What comes out is the same wherever the pieces break.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from router.api.request import Usage
from router.engines.collector import StreamCollector
from router.engines.engine import Failure
from router.engines.failures import is_error, malformed, read_error_event, unfinished
from router.engines.openai_chunks import Chunk, Chunks
from router.engines.opening import Opening
from router.engines.quiet import QuietForm, learn
from router.engines.sse import DONE, Event, FrameSplitter, frame_of, read_event, read_object

__all__ = ["EventTranslator", "OpenAIStream", "StreamCollector"]


_USELESS_FORMS: Final = 16
"""So many learned forms in a row that fitted no frame."""


class EventTranslator(Protocol):
    """For an engine whose events are not OpenAI's chunks."""

    @property
    def text_member(self) -> str:
        """Which member of an event is the text that the client gets; empty while it is not that simple."""
        ...

    def chunks(self, members: dict[str, Any]) -> list[dict[str, Any]] | Failure:
        """The chunks that an event stands for."""
        ...

    def last_chunks(self, pieces: int) -> list[dict[str, Any]]:
        """The chunks that a clean end of the body stands for, after `pieces` frames with text."""
        ...


@dataclass(slots=True)
class OpenAIStream:
    """A `StreamReader`. `kind` names the engine whose errors these are.

    A body that ends well with every choice finished counts as finished, even without `[DONE]`. A replica
    that overruns `max_tokens` is cut off with finish reason `length`: every frame with text is a token at
    least, so more of them than tokens (and one for text that was held back) cannot be right.
    """

    chunks: Chunks
    kind: str
    translator: EventTranslator | None = None

    done: bool = field(default=False, init=False)
    failure: Failure | None = field(default=None, init=False)
    pieces: int = field(default=0, init=False)
    _most_pieces: float = field(init=False)
    _splitter: FrameSplitter = field(default_factory=FrameSplitter, init=False)
    _opening: Opening = field(default_factory=Opening, init=False)
    _form: QuietForm | None = field(default=None, init=False)
    _learned_at: int = field(default=0, init=False)
    _useless: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._most_pieces = self.chunks.most_pieces

    @property
    def started(self) -> bool:
        return self._opening.passed

    @property
    def usage(self) -> Usage | None:
        return self.chunks.usage

    @property
    def finish_reason(self) -> str | None:
        return self.chunks.finish_reason

    def stop_after(self, pieces: int) -> None:
        self._most_pieces = min(self._most_pieces, pieces)

    def feed(self, data: bytes) -> bytes:
        form = self._form
        if form is not None and not self._splitter.carry:
            out = form.pass_on(data)
            if out is not None and self.pieces < self._most_pieces:
                self.pieces += 1
                return out
            count = form.count(data)
            if count and self.pieces + count <= self._most_pieces:
                self.pieces += count
                return form.translate(data, count)
        return self._read(self._splitter.feed(data))

    def end(self) -> bytes:
        out = self._read(self._splitter.end())
        return out if self._is_over else out + self._close()

    @property
    def _is_over(self) -> bool:
        return self.done or self.failure is not None

    def _read(self, frames: list[bytes]) -> bytes:
        out = []
        for frame in frames:
            if self._is_over:
                break
            out.append(self._frame(frame + b"\n\n"))
        if self._splitter.overflowed and not self._is_over:
            self._fail(malformed("a frame is too long"))
        return b"".join(out)

    def _frame(self, frame: bytes) -> bytes:
        """One whole frame the long way, unless it is quiet."""
        form = self._form
        if form is not None and self.pieces < self._most_pieces and form.count(frame) == 1:
            self.pieces += 1
            return form.translate(frame, 1)
        event = read_event(frame[:-2])
        if event is None:
            return b""
        return self._close() if event.data == DONE else self._event(event, frame)

    def _event(self, event: Event, frame: bytes) -> bytes:
        members = read_object(event.data)
        if members is None:
            return self._fail(malformed("a frame that is not a JSON object"))
        if event.name == b"error" or is_error(members):
            return self._fail(read_error_event(self.kind, members))
        if self.translator is not None:
            return self._translated(self.translator, members, frame)
        if not isinstance(members.get("choices"), list):
            return b""
        return self._chunk(members, frame, b"" if b"\n" in event.data else event.data)

    def _translated(self, translator: EventTranslator, members: dict[str, Any], frame: bytes) -> bytes:
        chunks = translator.chunks(members)
        if isinstance(chunks, Failure):
            return self._fail(chunks)
        return b"".join([self._chunk(chunk, frame, b"") for chunk in chunks if not self._is_over])

    def _chunk(self, members: dict[str, Any], frame: bytes, data: bytes) -> bytes:
        """One chunk that came in `frame`; `data` is it in one line, empty where there is none such."""
        chunk = self.chunks.read(members)
        if isinstance(chunk, Failure):
            return self._fail(chunk)
        if chunk is None:
            return b""
        if chunk.text or not chunk.eventful:
            self.pieces += 1
            if self.pieces > self._most_pieces:
                return self._cut()
        out = frame_of(data) if data and not chunk.changed else _rendered(chunk.members)
        if not chunk.eventful and chunk.text and self._useless < _USELESS_FORMS:
            self._learn(chunk, frame, out)
        return self._opening.release(out, carries=chunk.carries)

    def _learn(self, chunk: Chunk, frame: bytes, out: bytes) -> None:
        """Treat the next frames like this one; give up on streams whose frames all differ (logprobs, `n`)."""
        self._useless = self._useless + 1 if self.pieces == self._learned_at + 1 else 0
        self._learned_at = self.pieces
        member = chunk.text_member if self.translator is None else self.translator.text_member
        self._form = learn(frame, out, member, chunk.text, chunk.text_member) or self._form

    def _close(self) -> bytes:
        """The engine says that this is all."""
        out = b""
        if self.translator is not None:
            for members in self.translator.last_chunks(self.pieces):
                out += b"" if self._is_over else self._chunk(members, b"", b"")
        return out if self._is_over else out + self._complete()

    def _complete(self) -> bytes:
        finish = self.chunks.finish_tool_calls()
        if not self.chunks.complete:
            return self._fail(unfinished())
        self.done = True
        self._form = None
        closing = b"".join(map(_rendered, [*finish, *self.chunks.closing(self.pieces)]))
        return self._opening.release(closing + frame_of(DONE), carries=True)

    def _cut(self) -> bytes:
        # The engine would have told its usage at an end of its own.
        self.chunks.estimates_usage = True
        return b"".join(map(_rendered, self.chunks.finish_open("length"))) + self._complete()

    def _fail(self, failure: Failure) -> bytes:
        self.failure = failure
        self._form = None
        return b""


def _rendered(members: dict[str, Any]) -> bytes:
    return frame_of(msgspec.json.encode(members))
