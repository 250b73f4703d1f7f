"""A ChatML-like template: messages to the prompt text that every simulated engine tokenises."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


def render_chat(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> str:
    """The prompt. `continue_final_message` leaves the last message open, so that output goes on inside it."""
    parts = []
    if tools:
        parts.append(f"<|im_start|>tools\n{_json(tools)}<|im_end|>\n")
    for index, message in enumerate(messages):
        parts.append(f"<|im_start|>{message.get('role', '')}\n{_body(message)}")
        if not continue_final_message or index < len(messages) - 1:
            parts.append("<|im_end|>\n")
    if add_generation_prompt:
        parts.append("<|im_start|>assistant\n")
    return "".join(parts)


def _body(message: Mapping[str, Any]) -> str:
    calls = "".join(f"<|tool_call|>{_json(call.get('function'))}" for call in message.get("tool_calls") or ())
    return content_text(message.get("content")) + calls


def content_text(content: object) -> str:
    """The text of a message's content: a string, a list of parts, or nothing."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(map(_part_text, content))
    return _json(content)


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        text = part.get("text")
        return text if isinstance(text, str) else f"<{part.get('type')}:{_json(part)}>"
    return _json(part)


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
