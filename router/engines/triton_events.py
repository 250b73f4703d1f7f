"""Events of Triton's `generate_stream` as OpenAI chunks.

An event's `text_output` is the new text (delta) or all of it so far (cumulative), which layouts and releases
of the TensorRT-LLM backend decide differently.
"""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, Literal

from router.api.request import Endpoint, Usage
from router.engines.engine import Failure
from router.engines.failures import malformed
from router.engines.openai_chunks import Chunks
from router.engines.openai_words import UNFINISHED

Output = Literal["delta", "cumulative"]

_GROWING_EVENTS: Final = 3
_MOST_UNDECIDED: Final = 8
_CUT_CHARACTER: Final = "\ufffd"
"""How a detokeniser shows a character whose bytes have not all come; it may be replaced later."""


@dataclass(slots=True)
class TextOutput:
    """Finds the new text in each event. `mode` None: find out; `likely` decides where nothing tells.

    An event that does not begin with the one before it proves delta; three that grow prove cumulative. Until
    then only what both readings agree on goes out, which is the whole first event.
    """

    mode: Output | None
    likely: Output
    _sent: int = 0
    _last: str = ""
    _joined: str = ""
    _seen: int = 0
    _growing: int = 1

    def add(self, text: str) -> str | None:
        """The text that an event adds; None for one that contradicts what was sent before."""
        if self.mode == "delta":
            return text
        if self.mode is None:
            self._weigh(text)
        elif not text.startswith(self._last[: self._sent]):
            return None
        self._last = text
        return self._new(final=False)

    def rest(self) -> str:
        """What was held back, when no more events come."""
        self.mode = self.mode or self.likely
        return self._new(final=True)

    def _weigh(self, text: str) -> None:
        self._seen += 1
        last = self._last.rstrip(_CUT_CHARACTER)
        if self._seen > 1 and not text.startswith(last):
            self.mode = "delta"
        elif last and len(text) > len(last):
            self._growing += 1
            if self._growing == _GROWING_EVENTS:
                self.mode = "cumulative"
        self._joined += text
        if self.mode is None and self._seen == _MOST_UNDECIDED:
            self.mode = self.likely

    def _new(self, *, final: bool) -> str:
        whole = self._last if final else self._last.rstrip(_CUT_CHARACTER)
        if self.mode == "delta":
            whole = self._joined
        elif self.mode is None:
            agreed = takewhile(lambda pair: pair[0] == pair[1], zip(whole, self._joined, strict=False))
            whole = whole[: len(list(agreed))]
        new = whole[self._sent :]
        self._sent = max(self._sent, len(whole))
        return new


@dataclass(slots=True)
class TritonEvents:
    """An `EventTranslator`. Where no event tells a finish reason, the clean end of the body is the finish:
    by `length` if as many pieces came as tokens were allowed, else by `stop`.

    Token counts are the sums of the events' `num_output_tokens`, where the model has that output (as in
    Triton's own OpenAI front end).
    """

    chunks_so_far: Chunks
    output: TextOutput
    _is_introduced: bool = False
    _tells_reason: bool = False
    _reason: str | None = None
    _prompt_tokens: int | None = None
    _completion_tokens: int = 0
    _event_tokens: int = 1
    _own_pieces: int = 0
    """Pieces that were made here; the stream's others are quiet frames, of one token each."""

    @property
    def text_member(self) -> str:
        is_plain = self.output.mode == "delta" and self._reason is None and self._event_tokens == 1
        return "text_output" if is_plain else ""

    def chunks(self, members: dict[str, Any]) -> list[dict[str, Any]] | Failure:
        text = members.get("text_output")
        if not isinstance(text, str):
            return malformed("an event without one text")
        new = self.output.add(text)
        if new is None:
            return malformed("an event that takes text back; is `output` set right?")
        self._count(members)
        reason = members.get("finish_reason")
        if isinstance(reason, str):
            self._tells_reason = True
            self._reason = self._reason if reason in UNFINISHED else reason
        return self._pieces(new)

    def last_chunks(self, pieces: int) -> list[dict[str, Any]]:
        quiet = pieces - self._own_pieces
        chunks = self._pieces(self.output.rest())
        reason = self._reason
        if not self._tells_reason:
            limit = self.chunks_so_far.request.max_tokens
            reason = "stop" if limit is None or pieces < limit else "length"
        if self._prompt_tokens is not None:
            self.chunks_so_far.usage = Usage(self._prompt_tokens, self._completion_tokens + quiet)
        return chunks if reason is None else [*chunks, *self._opening(), self._made("", reason)]

    def _count(self, members: dict[str, Any]) -> None:
        prompt, completion = members.get("num_input_tokens"), members.get("num_output_tokens")
        if isinstance(prompt, int) and isinstance(completion, int):
            self._prompt_tokens = prompt
            self._completion_tokens += completion
            self._event_tokens = completion

    def _pieces(self, text: str) -> list[dict[str, Any]]:
        if not text:
            return []
        self._own_pieces += 1
        return [*self._opening(), self._made(text, None)]

    def _opening(self) -> list[dict[str, Any]]:
        """A chat's role, before all else; even an answer without a word has one."""
        if self._is_introduced or self.chunks_so_far.request.endpoint is not Endpoint.CHAT:
            return []
        self._is_introduced = True
        return [self._choice(delta={"role": "assistant", "content": ""}, finish_reason=None)]

    def _made(self, text: str, reason: str | None) -> dict[str, Any]:
        if self.chunks_so_far.request.endpoint is not Endpoint.CHAT:
            return self._choice(text=text, finish_reason=reason)
        return self._choice(delta={"content": text} if text else {}, finish_reason=reason)

    def _choice(self, *, finish_reason: str | None, **content: Any) -> dict[str, Any]:
        return self.chunks_so_far.made(index=0, **content, logprobs=None, finish_reason=finish_reason)
