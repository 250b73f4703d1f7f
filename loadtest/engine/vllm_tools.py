"""Tool calls as vLLM's hermes parser reads them from the output: which tokens are the call's arguments.

The output is `<tool_call>`, a JSON object with name and arguments, `</tool_call>`. The parser swallows the
tokens around the arguments, tells the name once, and then passes the arguments on as they come.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from loadtest.engine.guided import tool_arguments
from loadtest.engine.sampling import Output
from loadtest.engine.tokens import Detokenizer, decode, encode


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The call that an output consists of, and where in its tokens the arguments are."""

    name: str
    token_ids: tuple[int, ...]
    start: int
    end: int

    @classmethod
    def of(cls, function: Mapping[str, Any]) -> "ToolPlan":
        """The call of an OpenAI function definition."""
        name = str(function.get("name"))
        before = encode(f'<tool_call>\n{{"name": {msgspec.json.encode(name).decode()}, "arguments": ')
        arguments = encode(tool_arguments(function))
        ids = (*before, *arguments, *encode("}\n</tool_call>"))
        return cls(name, ids, len(before), len(before) + len(arguments))

    def arguments(self, token_ids: Sequence[int]) -> str:
        """The arguments in a whole answer, spaced as Python does; as they are if the output was cut in
        them."""
        text = decode(token_ids[self.start : self.end])
        return json.dumps(json.loads(text)) if len(token_ids) >= self.end else text


def call_id(response_id: str, choice: int) -> str:
    """The id of a choice's call."""
    return f"chatcmpl-tool-{blake2b(f'{response_id}/{choice}'.encode(), digest_size=8).hexdigest()}"


class ToolStream:
    """Reads one choice's outputs; gives the name once, and the arguments piece by piece."""

    def __init__(self, plan: ToolPlan) -> None:
        self._plan = plan
        self._position = 0
        self._detokenizer = Detokenizer()

    def push(self, output: Output) -> tuple[str | None, str]:
        """The function's name if it has just become known, and the new piece of its arguments."""
        plan, before = self._plan, self._position
        self._position += len(output.token_ids)
        start, end = max(0, plan.start - before), max(0, plan.end - before)
        piece = "".join(map(self._detokenizer.push, output.token_ids[start:end]))
        named = before < plan.start <= self._position
        return plan.name if named else None, piece


def name_delta(response_id: str, choice: int, name: str) -> bytes:
    """The delta that tells id and name."""
    call = {"id": call_id(response_id, choice), "type": "function", "index": 0, "function": {"name": name}}
    return msgspec.json.encode({"content": None, "tool_calls": [call]})


def arguments_delta(piece: str) -> bytes:
    """The delta with more of the arguments."""
    call = {"index": 0, "function": {"arguments": piece}}
    return msgspec.json.encode({"content": None, "tool_calls": [call]})
