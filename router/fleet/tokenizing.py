"""A model's own tokenizer and chat template: from a request to the token ids that its engines will see.

The one file that imports `tokenizers`, which is an optional extra. What it gets wrong costs cache hits, never
an answer, and what it cannot do it leaves to hashes of text.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from router.api.errors import RequestError
from router.api.request import Endpoint, InferenceRequest
from router.engines.chat_template import ChatTemplate
from router.engines.members import value_of
from router.fleet.extras import optional

_EXTRA: Final = "turnout[tokenizer]"

_MAX_CHARACTERS: Final = 200_000
"""A longer prompt would hold up all other requests for a tenth of a second; engines give up at a million."""
_UNCOMMON: Final = ("chat_template", "documents", "continue_final_message", "add_special_tokens", "echo")
"""Members that change how a chat is rendered. Requests with one are not worth imitating."""


class _Files(msgspec.Struct):
    """What `tokenizer_config.json` may say; a special token is a text, or an object that holds one."""

    bos_token: str | dict[str, Any] | None = None
    eos_token: str | dict[str, Any] | None = None
    chat_template: str | list[dict[str, str]] | None = None


class Tokenizer:
    """Loads `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` of a directory.

    Raises `ExtraMissing`, and `ValueError` for files that are no such thing.
    """

    def __init__(self, directory: Path) -> None:
        tokenizers = optional("tokenizers", _EXTRA)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        # It raises nothing more particular.
        except Exception as error:  # noqa: BLE001
            raise ValueError(f"{directory / 'tokenizer.json'} is no tokenizer: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._template = _template(directory)

    def ids_of(self, request: InferenceRequest) -> Sequence[int] | None:
        """None where there is no prompt, or it takes more than a tokenizer and a template to know its ids."""
        read = _READERS.get(request.endpoint)
        try:
            return None if read is None else read(self, request)
        except (msgspec.MsgspecError, RequestError):
            # The engine will say what is wrong with it.
            return None

    def encode(self, text: str, *, special: bool) -> Sequence[int] | None:
        """`special`: with the tokens that the model wants around a prompt. None for what is too long."""
        if len(text) > _MAX_CHARACTERS:
            return None
        ids: Sequence[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def chat(self, request: InferenceRequest) -> Sequence[int] | None:
        messages = value_of(request, "messages")
        if self._template is None or not isinstance(messages, list) or request.members.keys() & _UNCOMMON:
            return None
        choice = value_of(request, "tool_choice")
        tools = None if choice == "none" else value_of(request, "tools")
        variables = msgspec.convert(value_of(request, "chat_template_kwargs"), dict[str, Any] | None)
        text = self._template.render(messages, tools, variables)
        # The template writes the special tokens itself.
        return self.encode(text, special=False)

    def completion(self, request: InferenceRequest) -> Sequence[int] | None:
        """Of several prompts the first: they go to one replica together."""
        prompt = value_of(request, "prompt")
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            prompt = prompt[0]
        if isinstance(prompt, str):
            return self.encode(prompt, special=True)
        return msgspec.convert(prompt, list[int])

    def generate(self, request: InferenceRequest) -> Sequence[int] | None:
        inputs = value_of(request, "inputs")
        return self.encode(inputs, special=True) if isinstance(inputs, str) else None


def _template(directory: Path) -> ChatTemplate | None:
    """The chat template; one in a file of its own comes first. Raises `ValueError`."""
    try:
        files = msgspec.json.decode((directory / "tokenizer_config.json").read_bytes(), type=_Files)
    except FileNotFoundError:
        files = _Files()
    except msgspec.DecodeError as error:
        raise ValueError(f"{directory / 'tokenizer_config.json'}: {error}") from None
    own = directory / "chat_template.jinja"
    source = own.read_text(encoding="utf-8") if own.is_file() else _source(files.chat_template)
    if source is None:
        return None
    # vLLM and trtllm-serve join the parts of a message so.
    tokens = {"bos_token": _text(files.bos_token), "eos_token": _text(files.eos_token)}
    return ChatTemplate(source, **tokens, joint="\n")


def _source(template: str | list[dict[str, str]] | None) -> str | None:
    """Of several named ones the one called `default`."""
    if isinstance(template, list):
        return next((each.get("template") for each in template if each.get("name") == "default"), None)
    return template


def _text(token: str | dict[str, Any] | None) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else token or ""


_READERS: Final[Mapping[Endpoint, Callable[[Tokenizer, InferenceRequest], Sequence[int] | None]]] = {
    Endpoint.CHAT: Tokenizer.chat,
    Endpoint.COMPLETIONS: Tokenizer.completion,
    Endpoint.GENERATE: Tokenizer.generate,
    Endpoint.GENERATE_STREAM: Tokenizer.generate,
    Endpoint.GENERATE_ROOT: Tokenizer.generate,
}
