"""Judging and setting right one decoded chunk of a stream, whichever engine it comes from.

Clients get OpenAI's words, one id and one `created` a stream, each role once, and usage only if they asked.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Final

from router.api.request import Endpoint, InferenceRequest, Usage
from router.engines.engine import Failure
from router.engines.failures import malformed, unfinished
from router.engines.openai_words import (
    CHUNK_OBJECTS,
    FINISH_REASONS,
    UNFINISHED,
    expected_choices,
    minted_id,
    read_usage,
    stream_options,
    usage_object,
)

_TEXT_MEMBERS: Final = ("content", "reasoning", "reasoning_content", "text")


@dataclass(slots=True)
class Chunk:
    """One chunk on its way to the client, and what was seen in it."""

    members: dict[str, Any]
    changed: bool = False
    """It differs from what the engine sent."""
    carries: bool = False
    """It holds content, a tool call or a finish reason."""
    eventful: bool = False
    """It did more than add text to one choice: the next one may have to be treated otherwise."""
    text_member: str = ""
    """Which member holds its only text."""
    text: str = ""

    def put(self, where: dict[str, Any], name: str, value: Any) -> None:
        """Set a member, unless it is so already."""
        if name not in where or where[name] != value:
            where[name] = value
            self.changed = True

    def drop(self, where: dict[str, Any], name: str) -> None:
        """Remove a member that is there."""
        del where[name]
        self.changed = True


@dataclass(slots=True)
class Chunks:
    """What a stream has said so far. `infers_tool_calls`: the engine never says `tool_calls` itself (TGI)."""

    request: InferenceRequest
    public_name: str
    infers_tool_calls: bool = False

    usage: Usage | None = field(default=None, init=False)
    finish_reason: str | None = field(default=None, init=False)
    _expected: int = field(init=False)
    _has_delta: bool = field(init=False)
    _keeps_running_usage: bool = field(init=False)
    _usage_sent: bool = field(default=False, init=False)
    _id: str = field(default="", init=False)
    _created: int = field(default=0, init=False)
    _finished: set[int] = field(default_factory=set, init=False)
    _introduced: set[int] = field(default_factory=set, init=False)
    _with_tools: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._expected = expected_choices(self.request)
        self._has_delta = self.request.endpoint is Endpoint.CHAT
        running = self.request.include_usage and stream_options(self.request).get("continuous_usage_stats")
        self._keeps_running_usage = running is True

    @property
    def complete(self) -> bool:
        """Every choice has its finish reason."""
        return len(self._finished) >= self._expected

    @property
    def most_pieces(self) -> float:
        """As many chunks with text as `max_tokens` can make: a token each, and one for held-back text."""
        limit = self.request.max_tokens
        return math.inf if limit is None else self._expected * (limit + 1)

    def read(self, members: dict[str, Any]) -> Chunk | Failure | None:
        """A chunk to send on, None for one that the client does not get, or why the answer is broken."""
        chunk = Chunk(members)
        choices = members["choices"]
        self._pin(chunk)
        for choice in choices:
            if not isinstance(choice, dict) or not isinstance(choice.setdefault("index", 0), int):
                return malformed("a choice of a chunk")
            if failure := self._choice(chunk, choice):
                return failure
        chunk.eventful |= len(choices) != 1
        return chunk if self._usage(chunk) else None

    def closing(self) -> list[dict[str, Any]]:
        """Chunks that the client is still owed: usage that came elsewhere than in a chunk of its own."""
        if self.usage is None or self._usage_sent or not self.request.include_usage:
            return []
        return [{**self._head(), "choices": [], "usage": usage_object(self.usage)}]

    def cut(self) -> list[dict[str, Any]]:
        """Finish every open choice with `length`."""
        self.finish_reason = "length"
        open_choices = [index for index in range(self._expected) if index not in self._finished]
        self._finished.update(open_choices)
        content: dict[str, Any] = {"delta": {}} if self._has_delta else {"text": ""}
        return [
            {
                **self._head(),
                "choices": [{"index": index, **content, "logprobs": None, "finish_reason": "length"}],
            }
            for index in open_choices
        ]

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": CHUNK_OBJECTS[self.request.endpoint],
            "created": self._created,
            "model": self.public_name,
        }

    def _pin(self, chunk: Chunk) -> None:
        members = chunk.members
        if not self._id:
            given, created = members.get("id"), members.get("created")
            self._id = given if given and isinstance(given, str) else minted_id(self.request)
            self._created = created if isinstance(created, int) else 0
        chunk.put(members, "id", self._id)
        chunk.put(members, "created", self._created)
        chunk.put(members, "model", self.public_name)

    def _choice(self, chunk: Chunk, choice: dict[str, Any]) -> Failure | None:
        holder = choice.get("delta") if self._has_delta else choice
        if not isinstance(holder, dict):
            return malformed("a choice without a delta")
        if self._has_delta:
            self._delta(chunk, holder, choice["index"])
        self._text(chunk, holder)
        chunk.carries |= bool(choice.get("token_ids"))
        return self._finish(chunk, choice)

    def _delta(self, chunk: Chunk, delta: dict[str, Any], index: int) -> None:
        if "role" in delta:
            if index in self._introduced:
                chunk.drop(delta, "role")
            else:
                self._introduced.add(index)
                chunk.eventful = True
        if delta.get("tool_calls"):
            self._with_tools.add(index)
            chunk.eventful = True
        chunk.carries |= any(value for name, value in delta.items() if name != "role")

    def _text(self, chunk: Chunk, holder: dict[str, Any]) -> None:
        for name in _TEXT_MEMBERS:
            text = holder.get(name)
            if text and isinstance(text, str):
                chunk.eventful |= bool(chunk.text)
                chunk.text_member, chunk.text = name, text
        chunk.carries |= bool(chunk.text)

    def _finish(self, chunk: Chunk, choice: dict[str, Any]) -> Failure | None:
        said = choice.get("finish_reason")
        if not isinstance(said, str) or said in UNFINISHED:
            chunk.put(choice, "finish_reason", None)
            return None
        index = choice["index"]
        reason = FINISH_REASONS.get(said)
        if reason is None:
            return unfinished(said)
        if self.infers_tool_calls and reason == "stop" and index in self._with_tools:
            reason = "tool_calls"
        chunk.put(choice, "finish_reason", reason)
        chunk.carries = chunk.eventful = True
        self._finished.add(index)
        self.finish_reason = reason
        return None

    def _usage(self, chunk: Chunk) -> bool:
        """Record the usage, hide it from who did not ask; False if nothing is left of the chunk."""
        members = chunk.members
        is_own_chunk = not members["choices"]
        usage = read_usage(members.get("usage"))
        if usage is None:
            return not is_own_chunk
        self.usage = usage
        chunk.eventful = True
        if is_own_chunk:
            self._usage_sent = self.request.include_usage
            return self._usage_sent
        if not self._keeps_running_usage:
            chunk.drop(members, "usage")
        return True
