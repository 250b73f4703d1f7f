"""TGI's streams: outputs of the engine to chat, completions and native events."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from msgspec import Struct

from loadtest.engine import tgi_native_wire as native
from loadtest.engine import tgi_wire as wire
from loadtest.engine.chain import logprob_of
from loadtest.engine.core import Generation
from loadtest.engine.sampling import FinishReason, Output, TokenLogprob
from loadtest.engine.tgi_validation import Failure, generation_failed, incomplete
from loadtest.engine.tokens import EOS_ID, token_text

Framing = Literal["current", "pre2.1"]
Settled = Callable[[Generation, Failure | None], None]
"""Told once how a generation ended."""


def finish_word(reason: FinishReason, stop: str | int | None) -> native.FinishReason:
    """TGI's word: a stop string, the end token, or the limit."""
    if reason == "length":
        return "length"
    return "eos_token" if stop is None else "stop_sequence"


def openai_finish_word(reason: FinishReason, stop: str | int | None, framing: Framing = "current") -> str:
    """The same in chat: only the end token has OpenAI's word, and before 2.1 not even that."""
    word = finish_word(reason, stop)
    return "stop" if word == "eos_token" and framing == "current" else word


def logprobs_of(entries: Sequence[TokenLogprob] | None) -> wire.Logprobs | None:
    """Of a chat answer; None if they were not asked for."""
    if entries is None:
        return None
    return wire.Logprobs(
        tuple(
            wire.Logprob(
                token_text(entry.token_id),
                entry.logprob,
                tuple(wire.TopLogprob(token_text(token_id), value) for token_id, value in entry.top),
            )
            for entry in entries
        )
    )


class ToolParser:
    """Finds the call in guided text `{"function": {"_name": "f", ...}}` while it is written.

    Nothing comes out until the name is known; then one brace opens the arguments, and the text's last brace
    is dropped. The end token gives no event, so a streamed call has no finish reason at all.
    """

    def __init__(self) -> None:
        self._text = ""
        self._inside = False

    def push(self, text: str) -> wire.Function | None:
        """What one token adds to the call."""
        self._text += text
        if self._inside:
            return self._argument(text)
        name = _name_in(self._text.rstrip(" \t\r\n,}") + "}}")
        if name is None:
            return None
        self._inside = True
        return wire.Function(name, "{")

    def _argument(self, text: str) -> wire.Function:
        if _name_in(self._text) is not None:
            self._inside = False
            text = text.rstrip()
            text = text.removesuffix("}")
        return wire.Function(None, text)


def _name_in(text: str) -> str | None:
    try:
        return msgspec.json.decode(text, type=_Guided).function.name
    except msgspec.DecodeError:
        return None


class _GuidedCall(Struct):
    name: str = msgspec.field(name="_name")


class _Guided(Struct):
    function: _GuidedCall


@dataclass(slots=True)
class _Events:
    """What the three kinds of stream share: framing, and one report of how each generation ended."""

    generations: tuple[Generation, ...]
    settled: Settled
    framing: Framing

    def _frame(self, value: Struct) -> bytes:
        return wire.frame(value, space=self.framing == "current")

    def _done(self) -> bytes:
        return wire.done(space=self.framing == "current")

    def _openai_error(self, failure: Failure) -> bytes:
        return wire.openai_error_frame(failure.message, space=self.framing == "current")


@dataclass(slots=True)
class ChatEvents(_Events):
    """One chunk for each token, each with its role."""

    model: str
    include_usage: bool
    tool: ToolParser | None = None
    tool_call_id: str = "0"

    def output(self, _: int, output: Output) -> Sequence[bytes]:
        (generation,) = self.generations
        if output.finish_reason == "abort":
            failure = incomplete(streamed=True)
            self.settled(generation, failure)
            return (self._openai_error(failure),)
        frames = [self._frame(chunk) for chunk in self._chunks(output)]
        if output.finish_reason is not None:
            self.settled(generation, None)
            if self.include_usage:
                usage = wire.usage(generation.prompt_tokens, generation.output_tokens)
                frames.append(self._frame(self._chunk((), usage)))
        return frames

    def _chunks(self, output: Output) -> Sequence[wire.ChatChunk]:
        delta = self._delta(output)
        if delta is None:
            return ()
        reason = None
        if output.finish_reason is not None:
            reason = openai_finish_word(output.finish_reason, output.stop_reason, self.framing)
        choice = wire.ChunkChoice(0, delta, logprobs_of(output.logprobs), reason)
        return (self._chunk((choice,), None),)

    def _delta(self, output: Output) -> wire.Delta | None:
        if self.tool is None:
            return wire.Delta(content=output.text)
        if output.token_ids[-1:] == (EOS_ID,):
            return None
        function = self.tool.push(output.text)
        if function is None:
            return None
        call = wire.DeltaToolCall(0, self.tool_call_id, "function", function)
        return wire.Delta(tool_calls=(call,))

    def _chunk(self, choices: tuple[wire.ChunkChoice, ...], usage: wire.Usage | None) -> wire.ChatChunk:
        return wire.ChatChunk(created=int(time.time()), model=self.model, choices=choices, usage=usage)

    def end(self) -> Sequence[bytes]:
        return (self._done(),)

    def error(self, message: str) -> Sequence[bytes]:
        """The message tells what happened; the status in the event is always 422."""
        return (self._openai_error(generation_failed(message)), self._done())


@dataclass(slots=True)
class TextEvents(_Events):
    """Completions: one stream for all prompts; the last event of each has its usage."""

    model: str
    indexes: tuple[int, ...]
    """Which prompt each generation answers."""
    opening: tuple[Failure, ...] = ()
    """Prompts that failed before anything ran."""
    _opened: bool = field(default=False, init=False)

    def output(self, choice: int, output: Output) -> Sequence[bytes]:
        frames = [] if self._opened else [self._openai_error(failure) for failure in self.opening]
        self._opened = True
        generation = self.generations[choice]
        index = self.indexes[choice]
        if output.finish_reason is None:
            frames.append(self._frame(self._chunk(wire.TextChoice(index, output.text))))
        elif output.finish_reason == "abort":
            failure = incomplete(streamed=True)
            self.settled(generation, failure)
            frames.append(self._openai_error(failure))
        else:
            self.settled(generation, None)
            word = finish_word(output.finish_reason, output.stop_reason)
            last = wire.TextChoice(index, output.text, finish_reason=word)
            frames.append(self._frame(self._last(last, generation)))
        return frames

    def _chunk(self, choice: wire.TextChoice) -> wire.TextChunk:
        return wire.TextChunk(created=int(time.time()), choices=(choice,), model=self.model)

    def _last(self, choice: wire.TextChoice, generation: Generation) -> wire.TextAnswer:
        usage = wire.usage(generation.prompt_tokens, generation.output_tokens)
        return wire.TextAnswer(created=int(time.time()), model=self.model, choices=(choice,), usage=usage)

    def end(self) -> Sequence[bytes]:
        return (self._done(),)

    def error(self, message: str) -> Sequence[bytes]:
        return (self._openai_error(generation_failed(message)), self._done())


@dataclass(slots=True)
class NativeEvents(_Events):
    """`generate_stream`: the only stream with token ids, and the only one without `[DONE]`."""

    seed: int | None
    details: bool
    prefix: str
    """The prompt, if the full text was asked for."""
    _texts: list[str] = field(default_factory=list, init=False)
    _index: int = field(default=0, init=False)

    def output(self, _: int, output: Output) -> Sequence[bytes]:
        (generation,) = self.generations
        if output.finish_reason == "abort":
            failure = incomplete(streamed=True)
            self.settled(generation, failure)
            return (self._frame(failure.body),)
        self._texts.append(output.text)
        events = [self._token(token_id, "") for token_id in output.token_ids[:-1]]
        last = self._token(output.token_ids[-1], output.text)
        if output.finish_reason is not None:
            self.settled(generation, None)
            word = finish_word(output.finish_reason, output.stop_reason)
            details = native.StreamDetails(
                word, generation.output_tokens, self.seed, generation.prompt_tokens
            )
            text = self.prefix + "".join(self._texts)
            last = native.StreamToken(last.index, last.token, text, details if self.details else None)
        return [self._frame(event) for event in (*events, last)]

    def _token(self, token_id: int, text: str) -> native.StreamToken:
        self._index += 1
        return native.StreamToken(self._index, native_token(token_id, text))

    def end(self) -> Sequence[bytes]:
        return ()

    def error(self, message: str) -> Sequence[bytes]:
        return (self._frame(generation_failed(message).body),)


def native_token(token_id: int, text: str) -> native.Token:
    """A token as native answers show it; the end token by its name."""
    special = token_id == EOS_ID
    return native.Token(
        token_id, token_text(token_id) if special else text, logprob_of(token_id, 0).logprob, special
    )
