"""The text of an answer as a client was given it, in any dialect: to compare two of them, not to serve one.

Tool calls and reasoning count as text, in the order in which they came.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from router.engines.sse import DONE, read_event


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    """Chat's, or that of `/v1/messages`."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None


class _Token(msgspec.Struct):
    """TGI's."""

    text: str = ""
    special: bool = False


class _Chunk(msgspec.Struct):
    """`delta` is an object in `/v1/messages`, and text in `/v1/responses`."""

    choices: list[_Choice] = []
    token: _Token | None = None
    delta: _Delta | str | None = None


class _Part(msgspec.Struct):
    """A part of a message's content, of `/v1/messages` or of an item of `/v1/responses`."""

    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class _Message(_Delta):
    """One that is whole; `name`, `arguments` and `summary` are those of items of `/v1/responses`."""

    content: str | list[_Part] | None = None  # type: ignore[assignment]
    name: str | None = None
    arguments: str | None = None
    summary: list[_Part] | None = None


class _WholeChoice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Whole(_Message):
    """`content` is that of `/v1/messages`."""

    choices: list[_WholeChoice] = []
    output: list[_Message] = []
    generated_text: str | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_WHOLE: Final = msgspec.json.Decoder(_Whole | list[_Whole])


def whole_text(body: bytes) -> str | None:
    """Of an answer that came at once; None where it is none of those known."""
    try:
        answer: _Whole | list[_Whole] = _WHOLE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    parts: list[str | None] = []
    for each in answer if isinstance(answer, list) else [answer]:
        parts += [each.generated_text, _said(each), *map(_said, each.output)]
        parts += [choice.text for choice in each.choices]
        parts += [_said(choice.message) for choice in each.choices if choice.message is not None]
    return "".join(part for part in parts if part)


def text_pieces(frames: bytes) -> Iterator[str]:
    """One text for each whole frame, empty for one that has none. Frames that are no chunks have none."""
    for frame in frames.split(b"\n\n"):
        event = read_event(frame)
        if event is None or event.data == DONE:
            yield ""
            continue
        try:
            yield _text(_CHUNK.decode(event.data))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield ""


def _text(chunk: _Chunk) -> str:
    parts = [choice.text or "" for choice in chunk.choices]
    parts += [_said(choice.delta) for choice in chunk.choices if choice.delta is not None]
    if chunk.token is not None and not chunk.token.special:
        parts.append(chunk.token.text)
    if chunk.delta is not None:
        parts.append(chunk.delta if isinstance(chunk.delta, str) else _said(chunk.delta))
    return "".join(parts)


def _said(said: _Delta) -> str:
    calls = [call.function for call in said.tool_calls or []]
    content = said.content
    parts = [said.reasoning or said.reasoning_content, said.thinking, said.text, said.partial_json]
    if isinstance(said, _Message):
        parts += [*_parts(said.summary), said.name, said.arguments]
    parts += _parts(content) if isinstance(content, list) else [content]
    parts += [text for call in calls for text in (call.name, call.arguments)]
    return "".join(part for part in parts if part)


def _parts(parts: list[_Part] | None) -> list[str | None]:
    texts: list[str | None] = []
    for part in parts or []:
        texts += [part.thinking, part.text, part.name, bytes(part.input).decode(errors="replace")]
    return texts
