"""The canonical text of an answer: what it adds to its prompt's for a client that sends it back as it was.

None where the next turn will not begin so, or the engine's cache will not: several choices, and reasoning,
which chat templates leave out of later turns. A wrong guess costs a cache hit, never an answer.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from router.api.prompt_text import Message, message_text
from router.api.request import Endpoint, InferenceRequest

_NO_NEXT_TURN: Final = frozenset({"continue_final_message", "echo", "suffix"})
"""Members after which the answer does not simply follow the prompt."""
_REASONING: Final = frozenset({"reasoning", "redacted_thinking", "thinking"})


class _Said(Message):
    reasoning: Any = None
    reasoning_content: Any = None


class _ChatChoice(msgspec.Struct):
    message: _Said


class _TextChoice(msgspec.Struct):
    text: str


class _Chat(msgspec.Struct):
    choices: list[_ChatChoice]


class _Completion(msgspec.Struct):
    choices: list[_TextChoice]


class _Response(msgspec.Struct):
    output: list[Message]


class _Part(msgspec.Struct):
    type: str = ""


class _Generated(msgspec.Struct):
    generated_text: str


_CHAT: Final = msgspec.json.Decoder(_Chat)
_COMPLETION: Final = msgspec.json.Decoder(_Completion)
_MESSAGE: Final = msgspec.json.Decoder(Message)
_PARTS: Final = msgspec.json.Decoder(_Part)
_RESPONSE: Final = msgspec.json.Decoder(_Response)
_GENERATED: Final = msgspec.json.Decoder(_Generated | list[_Generated])
_STRING: Final = msgspec.json.Decoder(str)


def answer_text(request: InferenceRequest, body: bytes) -> str | None:
    """`body`: the whole answer, as the client that sent `request` is given it."""
    read = _READERS.get(request.endpoint)
    if read is None or not _NO_NEXT_TURN.isdisjoint(request.members):
        return None
    try:
        return read(request, body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _chat(_request: InferenceRequest, body: bytes) -> str | None:
    choices = _CHAT.decode(body).choices
    if len(choices) != 1:
        return None
    said = choices[0].message
    return None if said.reasoning or said.reasoning_content else message_text(said)


def _completion(_request: InferenceRequest, body: bytes) -> str | None:
    choices = _COMPLETION.decode(body).choices
    return choices[0].text if len(choices) == 1 else None


def _anthropic(_request: InferenceRequest, body: bytes) -> str | None:
    message = _MESSAGE.decode(body)
    parts = message.content if isinstance(message.content, list) else []
    if any(_PARTS.decode(part).type in _REASONING for part in parts):
        return None
    return message_text(message)


def _responses(_request: InferenceRequest, body: bytes) -> str | None:
    output = _RESPONSE.decode(body).output
    if any(item.type in _REASONING for item in output):
        return None
    return "".join(map(message_text, output))


def _generated(request: InferenceRequest, body: bytes) -> str | None:
    answer: _Generated | list[_Generated] = _GENERATED.decode(body)
    if isinstance(answer, list):
        if len(answer) != 1:
            return None
        answer = answer[0]
    inputs: str = _STRING.decode(request.members["inputs"])
    # With `return_full_text` the prompt comes first; whether `/` means it unsaid, only the engine knows.
    return answer.generated_text.removeprefix(inputs)


_READERS: Final[Mapping[Endpoint, Callable[[InferenceRequest, bytes], str | None]]] = {
    Endpoint.CHAT: _chat,
    Endpoint.COMPLETIONS: _completion,
    Endpoint.MESSAGES: _anthropic,
    Endpoint.RESPONSES: _responses,
    Endpoint.GENERATE: _generated,
    Endpoint.GENERATE_ROOT: _generated,
}
