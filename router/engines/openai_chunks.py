"""Judging and setting right one decoded chunk of a stream, whichever engine it comes from.

Clients get OpenAI's words, one id and one `created` a stream, each role and tool call id once, and usage only
if they asked.
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
    added,
    estimated_usage,
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
    """It did more than add text: one that differs in its text alone may have to be treated otherwise."""
    text_member: str = ""
    """Which member holds its text, the last if there are several."""
    text: str = ""

    def put(self, where: dict[str, Any], name: str, value: Any) -> None:
        """Set a member, unless it is so already."""
        if name not in where or where[name] != value:
            where[name] = value
            self.changed = True

    def drop(self, where: dict[str, Any], name: str) -> None:
        """Remove a member, if it is there."""
        if name in where:
            del where[name]
            self.changed = True


@dataclass(slots=True)
class Chunks:
    """What a stream has said so far. An answer that is only collected from a stream always states its usage.

    `infers_tool_calls`: the engine never says `tool_calls` itself (TGI). `created` (Unix seconds), and
    `estimates_usage`: for engines that say neither the one nor the other (Triton).
    """

    request: InferenceRequest
    public_name: str
    infers_tool_calls: bool = False
    estimates_usage: bool = False
    created: int | None = None

    usage: Usage | None = field(default=None, init=False)
    finish_reason: str | None = field(default=None, init=False)
    _expected: int = field(init=False)
    _has_delta: bool = field(init=False)
    _shows_usage: bool = field(init=False)
    _keeps_running_usage: bool = field(init=False)
    _usage_sent: bool = field(default=False, init=False)
    _usage_so_far: Usage | None = field(default=None, init=False)
    _id: str = field(default="", init=False)
    _finished: set[int] = field(default_factory=set, init=False)
    _introduced: set[int] = field(default_factory=set, init=False)
    _calls: dict[tuple[int, int], tuple[object, object]] = field(default_factory=dict, init=False)
    """Name and id by choice and call."""

    def __post_init__(self) -> None:
        request = self.request
        self._expected = expected_choices(request)
        self._has_delta = request.endpoint is Endpoint.CHAT
        self._shows_usage = request.include_usage or not request.stream
        self._keeps_running_usage = (
            request.include_usage and stream_options(request).get("continuous_usage_stats") is True
        )

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
        return chunk if self._usage(chunk) else None

    def made(self, **choice: Any) -> dict[str, Any]:
        """A chunk of the router's own making, with one choice."""
        return {**self._head(), "choices": [choice]}

    def closing(self, pieces: int) -> list[dict[str, Any]]:
        """Usage that the client is still owed: the engine gave it elsewhere than in a chunk of its own."""
        if self._usage_sent or not self._shows_usage:
            return []
        if self.usage is not None:
            usage = usage_object(self.usage)
        elif self.estimates_usage:
            usage = estimated_usage(self.request, pieces)
        else:
            return []
        return [{**self._head(), "choices": [], "usage": usage}]

    def finish_open(self, reason: str) -> list[dict[str, Any]]:
        """Finish every choice that is still open."""
        self.finish_reason = reason
        indices = [index for index in range(self._expected) if index not in self._finished]
        self._finished.update(indices)
        return [
            self.made(index=index, **self._nothing(index), logprobs=None, finish_reason=reason)
            for index in indices
        ]

    def _nothing(self, index: int) -> dict[str, Any]:
        """What a chunk without text holds; even an answer without a word has a role."""
        if not self._has_delta:
            return {"text": ""}
        return {"delta": {} if index in self._introduced else {"role": "assistant", "content": ""}}

    def finish_tool_calls(self) -> list[dict[str, Any]]:
        """The finish of tool calls that TGI leaves out: usage came, so nothing more will.

        (Its `ChatState` is back in `Buffering` when the end token arrives, and emits no chunk for it; nor
        for a call that `max_tokens` cut before its name was known.)
        """
        if not self.infers_tool_calls or self.usage is None or self.complete:
            return []
        limit = self.request.max_tokens
        if self._calls:
            return self.finish_open("tool_calls")
        is_cut = limit is not None and self.usage.completion_tokens >= limit
        return self.finish_open("length") if is_cut else []

    def _head(self) -> dict[str, Any]:
        if not self._id:
            self._id = minted_id(self.request)
        return {
            "id": self._id,
            "object": CHUNK_OBJECTS[self.request.endpoint],
            "created": self.created or 0,
            "model": self.public_name,
        }

    def _pin(self, chunk: Chunk) -> None:
        members = chunk.members
        if not self._id:
            given, created = members.get("id"), members.get("created")
            self._id = given if given and isinstance(given, str) else minted_id(self.request)
            if self.created is None:
                self.created = created if isinstance(created, int) else 0
        chunk.put(members, "id", self._id)
        chunk.put(members, "created", self.created)
        chunk.put(members, "model", self.public_name)

    def _choice(self, chunk: Chunk, choice: dict[str, Any]) -> Failure | None:
        holder = choice.get("delta") if self._has_delta else choice
        if not isinstance(holder, dict):
            return malformed("a choice without a delta")
        if self._has_delta:
            self._delta(chunk, holder, choice["index"])
        for name in _TEXT_MEMBERS:
            text = holder.get(name)
            if text and isinstance(text, str):
                chunk.text_member, chunk.text = name, text
        if not chunk.carries:
            chunk.carries = bool(chunk.text or choice.get("token_ids") or (self._has_delta and _says(holder)))
        return self._finish(chunk, choice)

    def _delta(self, chunk: Chunk, delta: dict[str, Any], index: int) -> None:
        if "role" in delta:
            if index in self._introduced:
                chunk.drop(delta, "role")
            else:
                self._introduced.add(index)
                chunk.eventful = True
        calls = delta.get("tool_calls")
        if calls and isinstance(calls, list):
            chunk.eventful = True
            for call in calls:
                self._tool_call(chunk, call, index)

    def _tool_call(self, chunk: Chunk, call: Any, index: int) -> None:
        """Clients join the strings of a call's pieces: its id and its name come once, in the first.

        TGI repeats the id. trtllm-serve repeats the name of a named tool, whose call has no id at all.
        """
        if not isinstance(call, dict):
            return
        function, number = call.get("function"), call.get("index")
        function = function if isinstance(function, dict) else {}
        name = function.get("name")
        key = (index, number if isinstance(number, int) else 0)
        known = self._calls.get(key)
        if known is not None and (not name or (name, call.get("id") or known[1]) == known):
            chunk.drop(call, "id")
            chunk.drop(call, "type")
            if name:
                chunk.drop(function, "name")
            return
        if not call.get("id"):
            chunk.put(call, "id", f"call_{self.request.id}_{key[0]}_{key[1]}")
        self._calls[key] = (name, call["id"])

    def _finish(self, chunk: Chunk, choice: dict[str, Any]) -> Failure | None:
        said = choice.get("finish_reason")
        if not isinstance(said, str) or said in UNFINISHED:
            chunk.put(choice, "finish_reason", None)
            return None
        index = choice["index"]
        reason = FINISH_REASONS.get(said)
        if reason is None:
            return unfinished(said)
        if self.infers_tool_calls and reason == "stop" and self._calls:
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
        chunk.eventful = True
        if is_own_chunk and "batch_prompt" in self.request.needs:
            usage = self._add_up(chunk, usage)
        self.usage = usage
        if is_own_chunk:
            # Before every choice is finished it would come too early: `closing` makes another one.
            self._usage_sent = self._shows_usage and self.complete
            return self._usage_sent
        if not self._keeps_running_usage:
            chunk.drop(members, "usage")
        return True

    def _add_up(self, chunk: Chunk, usage: Usage) -> Usage:
        """trtllm-serve states the usage of each prompt of a batch by itself; OpenAI means all of them."""
        so_far = self._usage_so_far
        if so_far is not None:
            usage = added(so_far, usage)
            chunk.put(chunk.members, "usage", usage_object(usage))
        self._usage_so_far = usage
        return usage


def _says(delta: dict[str, Any]) -> bool:
    """Whether a delta holds anything besides the role, under whatever name."""
    return any(value for name, value in delta.items() if name != "role")
