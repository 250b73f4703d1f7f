"""What is wrong with an answer that looks like one: tool calls that are no JSON, text that goes in circles.

For the analysis of releases. Only what can be told from the bytes alone, and the same for every version.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from policies.release.observation import Bad

_CIRCLE: Final = 400
"""Characters at the end of an answer that repeat themselves before it counts."""
_LONGEST_PERIOD: Final = 80
_DATA: Final = b"data: "


class _Function(msgspec.Struct):
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int = 0
    function: _Function | None = None


class _Said(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Said | None = None
    delta: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class _Told:
    """One choice, put together."""

    __slots__ = ("arguments", "finish", "text")

    def __init__(self) -> None:
        self.text = ""
        self.arguments: dict[int, str] = {}
        self.finish: str | None = None

    def add(self, choice: _Choice) -> None:
        said = choice.delta or choice.message or _Said()
        content = said.content if isinstance(said.content, str) else None
        self.text += choice.text or content or said.reasoning_content or said.reasoning or ""
        self.finish = choice.finish_reason or self.finish
        for number, call in enumerate(said.tool_calls or ()):
            at = call.index if choice.delta else number
            arguments = "" if call.function is None else call.function.arguments or ""
            self.arguments[at] = self.arguments.get(at, "") + arguments


def signs_of(body: bytes, *, stream: bool) -> frozenset[Bad]:
    """`body` is what the client got, an OpenAI answer or its stream; nothing is said of what is neither."""
    told: dict[int, _Told] = {}
    try:
        for part in _parts(body) if stream else [body]:
            for choice in _ANSWER.decode(part).choices:
                told.setdefault(choice.index, _Told()).add(choice)
    except msgspec.MsgspecError:
        return frozenset()
    return frozenset[Bad]().union(*map(_signs, told.values()))


def _parts(body: bytes) -> Sequence[bytes]:
    lines = [line[len(_DATA) :] for line in body.split(b"\n") if line.startswith(_DATA)]
    return [line for line in lines if line.startswith(b"{")]


def _signs(told: _Told) -> frozenset[Bad]:
    signs = set[Bad]()
    # What its token limit has cut off is that, and no JSON for that reason.
    if told.finish != "length" and not all(map(_is_json, told.arguments.values())):
        signs.add(Bad.TOOL_JSON)
    if goes_in_circles(told.text):
        signs.add(Bad.REPETITION)
    if not told.text and not told.arguments:
        signs.add(Bad.EMPTY)
    return frozenset(signs)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return False
    return True


def goes_in_circles(text: str) -> bool:
    """It ends in the same few words, over and over."""
    end = text[-_CIRCLE:]
    if len(end) < _CIRCLE:
        return False
    return any(end[period:] == end[:-period] for period in range(1, _LONGEST_PERIOD + 1))
