"""The canonical text of a prompt: what two requests have in common exactly if an engine would share it.

Key order and layout of the JSON do not matter, the bounds of messages do. Tools come first, because chat
templates put them there, and turn n + 1 of a conversation begins with the text of turn n and its answer. What
it leaves out (an unknown member of a message) makes prompts look more alike than they are: then a cache is
missed, and no answer is wrong.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import xxhash

from router.api.members import Members
from router.api.request import Endpoint, InferenceRequest

_MESSAGE: Final = "\x01"
_CONTENT: Final = "\x02"
_PART: Final = "\x03"
_sorted: Final = msgspec.json.Encoder(order="sorted").encode


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class Message(msgspec.Struct):
    """What of a message an engine sees, in any of the dialects."""

    role: str = ""
    type: str = ""
    content: str | list[msgspec.Raw] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    call_id: str | None = None
    output: str | None = None
    arguments: str | None = None


_MESSAGES: Final = msgspec.json.Decoder(list[Message])
_PART_OF: Final = msgspec.json.Decoder(_Part)
_INPUT: Final = msgspec.json.Decoder(str | list[Message])
_SYSTEM: Final = msgspec.json.Decoder(str | list[msgspec.Raw])
_PROMPT: Final = msgspec.json.Decoder(str | list[Any])


def text_of(request: InferenceRequest) -> str | list[int] | None:
    """The prompt's text, or its token ids; None where there is none, or where it cannot be read."""
    read = _READERS.get(request.endpoint)
    if read is None:
        return None
    try:
        return read(request.members)
    except msgspec.MsgspecError:
        # The engine will say what is wrong with it.
        return None


def beginning_of(request: InferenceRequest) -> str | None:
    """What all turns of a conversation begin with: all to the end of the first user's turn.

    Where a prompt has no turns, the whole of it; None where it cannot be read.
    """
    raw = request.members.get("messages") or request.members.get("input")
    try:
        if raw is None or bytes(memoryview(raw)[:1]) != b"[":
            text = text_of(request)
            return text if isinstance(text, str) or text is None else str(text)
        turns = _MESSAGES.decode(raw)
        system = request.members.get("system") or request.members.get("instructions")
    except msgspec.MsgspecError:
        return None
    first = next((at for at, turn in enumerate(turns) if turn.role == "user"), len(turns))
    before = "" if system is None else bytes(system).decode("utf-8", "replace")
    return before + "".join(map(message_text, turns[: first + 1]))


def _chat(members: Members) -> str:
    return _tools(members) + "".join(map(message_text, _MESSAGES.decode(members["messages"])))


def _anthropic(members: Members) -> str:
    system = members.get("system")
    before = "" if system is None else f"{_MESSAGE}system{_CONTENT}{_content(_SYSTEM.decode(system))}"
    return _tools(members) + before + "".join(map(message_text, _MESSAGES.decode(members["messages"])))


def _responses(members: Members) -> str | None:
    if "input" not in members:
        return None
    instructions = members.get("instructions")
    given = _INPUT.decode(members["input"])
    messages = [Message(role="user", content=given)] if isinstance(given, str) else given
    if instructions is not None and instructions != msgspec.Raw(b"null"):
        messages = [Message(role="system", content=msgspec.json.decode(instructions, type=str)), *messages]
    return _tools(members) + "".join(map(message_text, messages))


def _completion(members: Members) -> str | list[int] | None:
    prompt: Any = _PROMPT.decode(members["prompt"])
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    return msgspec.convert(prompt, list[int])


def _inputs(members: Members) -> str | None:
    raw = members.get("inputs")
    return None if raw is None else msgspec.json.decode(raw, type=str)


def _tools(members: Members) -> str:
    tools = members.get("tools")
    return "" if tools is None else _sorted(msgspec.json.decode(tools)).decode()


def message_text(message: Message) -> str:
    text = f"{_MESSAGE}{message.role or message.type}{_CONTENT}"
    content = message.content
    if content is not None:
        text += content if isinstance(content, str) else _content(content)
    more = (message.name, message.tool_call_id, message.call_id, message.output, message.arguments)
    if any(more):
        text += _PART.join(["", *(one or "" for one in more)])
    if message.tool_calls:
        text += _sorted(message.tool_calls).decode()
    return text


def _content(content: str | list[msgspec.Raw]) -> str:
    if isinstance(content, str):
        return content
    return _PART.join(map(_part, content))


def _part(raw: msgspec.Raw) -> str:
    """Text as it is; images, sound and files by their digest."""
    part = _PART_OF.decode(raw)
    if part.text is not None:
        return part.text
    return f"{part.type}:{xxhash.xxh3_64_hexdigest(_sorted(msgspec.json.decode(raw)))}"


_READERS: Final[Mapping[Endpoint, Callable[[Members], str | list[int] | None]]] = {
    Endpoint.CHAT: _chat,
    Endpoint.COMPLETIONS: _completion,
    Endpoint.MESSAGES: _anthropic,
    Endpoint.RESPONSES: _responses,
    Endpoint.GENERATE: _inputs,
    Endpoint.GENERATE_STREAM: _inputs,
    Endpoint.GENERATE_ROOT: _inputs,
}
