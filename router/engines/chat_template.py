"""Rendering chats to prompts with a model's own Jinja template, for engines that only take prompts.

Templates come with models and messages from strangers, so rendering is sandboxed. The environment is the one
that templates are written for (transformers' `apply_chat_template`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

import msgspec
from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from router.api.errors import EndpointNotSupported, RequestError

_TEXT_PARTS: Final = ("text", "input_text")


class ChatTemplate:
    """A compiled template. Raises `ValueError` for a source that is no Jinja.

    The special tokens are empty where the tokenizer behind the prompt adds them. `joint` stands between the
    parts of a message that comes in parts.
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "", joint: str = "") -> None:
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._joint = joint
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now_as
        try:
            self._template: Template = environment.from_string(source)
        except TemplateError as error:
            raise ValueError(f"the chat template is not valid Jinja: {error}") from None

    def render(
        self,
        messages: Sequence[Any],
        tools: Sequence[Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt up to where the assistant begins. Raises `RequestError` for messages it cannot render.

        `more`: variables of this template, as `chat_template_kwargs` names them.
        """
        variables = {
            "messages": [_plain(message, self._joint) for message in messages],
            "add_generation_prompt": True,
            "tools": tools,
            "documents": None,
            **self._tokens,
            **(more or {}),
        }
        try:
            return self._template.render(variables)
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise RequestError(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from None


def _plain(message: Any, joint: str) -> dict[str, Any]:
    """A message whose content is one text; templates for text models expect that."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError("every message must be an object with a 'role'", param="messages")
    content = message.get("content")
    if isinstance(content, list):
        content = joint.join([_text_of(part) for part in content])
    return {**message, "content": "" if content is None else content}


def _text_of(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    raise EndpointNotSupported("Triton's generate takes text only.", param="messages")


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """Without the escapes for HTML that Jinja's own filter makes."""
    encoded = msgspec.json.encode(value)
    return (encoded if indent is None else msgspec.json.format(encoded, indent=indent)).decode()


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now_as(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
