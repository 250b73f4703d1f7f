"""trtllm-serve's streams: outputs of the engine to chat and completions events.

The role chunk comes with the first output. A chat stream that breaks is just cut; a completions stream says
what happened, and `[DONE]` twice.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from msgspec import UNSET, UnsetType

from loadtest.engine import trtllm_wire as wire
from loadtest.engine.generation import Generation
from loadtest.engine.sampling import FinishReason, Output, TokenLogprob
from loadtest.engine.tokens import token_text

Trailer = Callable[[], bytes]


def finish_word(reason: FinishReason) -> str:
    """An aborted request is `cancelled`."""
    return "cancelled" if reason == "abort" else reason


@dataclass(frozen=True, slots=True)
class Identity:
    """The id and time of each chunk: those of the request, or new ones each time as older servers do."""

    prefix: str
    number: int
    created: int
    renewed: bool

    def now(self) -> tuple[str, int]:
        if self.renewed:
            return f"{self.prefix}-{uuid4().hex}", int(time.time())
        return f"{self.prefix}-{self.number}", self.created


def chat_logprobs(entries: Sequence[TokenLogprob], alternatives: int, *, whole: bool) -> wire.Logprobs:
    """`alternatives` per token; none leaves the key out of chunks and null in whole answers."""

    def one(entry: TokenLogprob) -> wire.Logprob:
        absent: UnsetType | None = None if whole else UNSET
        top = tuple(_logprob(token_id, value, absent) for token_id, value in entry.top[:alternatives])
        return _logprob(entry.token_id, entry.logprob, top if alternatives else absent)

    return wire.Logprobs(tuple(map(one, entries)))


def _logprob(token_id: int, value: float, top: tuple[wire.Logprob, ...] | UnsetType | None) -> wire.Logprob:
    text = token_text(token_id)
    return wire.Logprob(text, value, tuple(text.encode()), top)


def text_logprobs(entries: Sequence[TokenLogprob], offset: int = 0) -> wire.TextLogprobs:
    """Four lists; `offset` is where the text begins."""
    texts = tuple(token_text(entry.token_id) for entry in entries)
    offsets = [offset]
    for text in texts[:-1]:
        offsets.append(offsets[-1] + len(text))
    return wire.TextLogprobs(
        text_offset=tuple(offsets),
        token_logprobs=tuple(entry.logprob for entry in entries),
        tokens=texts,
        top_logprobs=tuple(
            {token_text(token_id): value for token_id, value in entry.top} for entry in entries
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the request asked of its stream."""

    model: str
    usage: bool
    continuous_usage: bool
    logprobs: bool = False
    top_logprobs: int = 0
    tool: str | None = None
    """The function whose arguments the text is."""
    tool_named: bool = False
    """Whether the request named that function, which changes how its call looks."""
    echo: str = ""
    detokenize: bool = True


@dataclass(slots=True)
class ChatStream:
    """`n` generations of one prompt as chat events."""

    generations: tuple[Generation, ...]
    wanted: Wanted
    identity: Identity
    trailer: Trailer | None = None
    _begun: set[int] = field(default_factory=set, init=False)

    def output(self, choice: int, output: Output) -> Sequence[bytes]:
        """Role chunks for all choices come before anything else."""
        frames = [] if self._begun else self._opening()
        first = choice not in self._begun
        self._begun.add(choice)
        reason: str | UnsetType = UNSET
        if output.finish_reason is not None:
            called = self.wanted.tool and not self.wanted.tool_named and output.finish_reason == "stop"
            reason = "tool_calls" if called else finish_word(output.finish_reason)
        logprobs: wire.Logprobs | UnsetType = UNSET
        if self.wanted.logprobs:
            logprobs = chat_logprobs(output.logprobs or (), self.wanted.top_logprobs, whole=False)
        stop = UNSET if output.stop_reason is None else output.stop_reason
        made = wire.ChunkChoice(choice, self._delta(choice, output.text, first), logprobs, reason, stop)
        frames.append(wire.frame(self._chunk(made, self._usage_so_far(choice))))
        return frames

    def _opening(self) -> list[bytes]:
        deltas = [wire.Delta(role="assistant")]
        if self.wanted.echo:
            deltas.append(wire.Delta(content=self.wanted.echo))
        prompt = self.generations[0]
        usage: wire.Usage | UnsetType = UNSET
        if self.wanted.continuous_usage:
            usage = wire.usage(prompt.prompt_tokens, 0, prompt.cached_tokens)
        return [
            wire.first_frame(self._chunk(wire.ChunkChoice(index, delta), usage))
            for index in range(len(self.generations))
            for delta in deltas
        ]

    def _delta(self, choice: int, text: str, first: bool) -> wire.Delta:
        name = self.wanted.tool
        if name is None:
            return wire.Delta(content=text, reasoning_content="")
        if self.wanted.tool_named:
            call = wire.DeltaToolCall(index=choice, function=wire.Function(name, text))
            return wire.Delta(tool_calls=(call,))
        if first:
            call = wire.DeltaToolCall(
                id=f"chatcmpl-tool-{uuid4().hex}", index=0, function=wire.Function(name, text)
            )
        else:
            call = wire.DeltaToolCall(index=0, function=wire.Function(arguments=text))
        return wire.Delta(content="", reasoning_content="", tool_calls=(call,))

    def _usage_so_far(self, choice: int) -> wire.Usage | UnsetType:
        if not self.wanted.continuous_usage:
            return UNSET
        one = self.generations[choice]
        return wire.usage(one.prompt_tokens, one.output_tokens, one.cached_tokens)

    def _chunk(self, choice: wire.ChunkChoice, usage: wire.Usage | UnsetType) -> wire.ChatChunk:
        name, created = self.identity.now()
        return wire.ChatChunk(
            id=name, created=created, model=self.wanted.model, choices=(choice,), usage=usage
        )

    def end(self) -> Sequence[bytes]:
        """Usage, `[DONE]`, and what may come after it."""
        frames = []
        if self.wanted.usage:
            name, created = self.identity.now()
            total = usage_of(self.generations)
            frames.append(
                wire.frame(wire.ChatChunk(id=name, created=created, model=self.wanted.model, usage=total))
            )
        frames.append(wire.DONE)
        if self.trailer is not None:
            frames.append(self.trailer())
        return frames

    def error(self, message: str) -> None:
        """The exception is raised again: nothing more is said."""


def usage_of(generations: Sequence[Generation]) -> wire.Usage:
    """The prompt counts once, whatever the number of choices."""
    prompt = generations[0]
    written = sum(one.output_tokens for one in generations)
    return wire.usage(prompt.prompt_tokens, written, prompt.cached_tokens)


@dataclass(slots=True)
class TextStream:
    """Completions events: `choices` generations for each prompt, one after another."""

    generations: tuple[Generation, ...]
    choices: int
    wanted: Wanted
    identities: tuple[Identity, ...]
    """One per prompt."""
    echoes: tuple[str, ...] = ()
    """The text of each prompt, if it is to be repeated."""
    trailer: Trailer | None = None
    _begun: set[int] = field(default_factory=set, init=False)
    _written: dict[int, int] = field(default_factory=dict, init=False)

    def output(self, choice: int, output: Output) -> Sequence[bytes]:
        """One chunk; the last of a prompt is followed by its usage."""
        text = output.text
        if self.echoes and choice not in self._begun:
            text = self.echoes[choice // self.choices] + text
        self._begun.add(choice)
        offset = self._written.get(choice, 0)
        self._written[choice] = offset + len(text)
        show = self.wanted.detokenize
        made = wire.TextChunkChoice(
            index=choice,
            text=text if show else "",
            token_ids=None if show else output.token_ids,
            logprobs=text_logprobs(output.logprobs or (), offset) if self.wanted.logprobs else None,
            finish_reason=None if output.finish_reason is None else finish_word(output.finish_reason),
            stop_reason=output.stop_reason,
        )
        one = self.generations[choice]
        usage = wire.usage(one.prompt_tokens, one.output_tokens, one.cached_tokens)
        frames = [wire.frame(self._chunk(choice, (made,), usage if self.wanted.continuous_usage else None))]
        if self.wanted.usage and all(other.finished for other in self._siblings(choice)):
            frames.append(wire.frame(self._chunk(choice, (), usage_of(self._siblings(choice)))))
        return frames

    def _siblings(self, choice: int) -> Sequence[Generation]:
        start = choice - choice % self.choices
        return self.generations[start : start + self.choices]

    def _chunk(
        self, choice: int, choices: tuple[wire.TextChunkChoice, ...], usage: wire.Usage | None
    ) -> wire.TextChunk:
        name, created = self.identities[choice // self.choices].now()
        return wire.TextChunk(id=name, created=created, model=self.wanted.model, choices=choices, usage=usage)

    def end(self) -> Sequence[bytes]:
        return [wire.DONE] if self.trailer is None else [wire.DONE, self.trailer()]

    def error(self, message: str) -> Sequence[bytes]:
        return wire.error_frames(message)
