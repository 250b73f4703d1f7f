"""What an engine process says it is: which model, made how, served by what.

Each dialect has questions, and readers of the answers; what nobody says is None, never a guess.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import msgspec

MAX_NAMES: Final = 256
MAX_TEXT: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """`names` are those that the process answers to; None where it lists none.

    The others have the meaning of the options of `expect`, see `router.config.expect`.
    """

    names: tuple[str, ...] | None = None
    model: str | None = None
    revision: str | None = None
    engine_version: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    tensor_parallel: int | None = None
    max_model_len: int | None = None
    vocab_size: int | None = None
    config_sha256: str | None = None
    tokenizer_sha256: str | None = None
    chat_template_sha256: str | None = None
    weights_sha256: str | None = None

    def known(self) -> dict[str, Any]:
        """What is said, by field."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def filled(self, other: "Fingerprint") -> "Fingerprint":
        """With what `other` says where this one is silent."""
        return replace(other, **self.known())


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is asked about: the `name` that requests use, and whether that is a LoRA adapter's."""

    name: str
    is_adapter: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """One GET, and the fields of `Fingerprint` that its answer may tell.

    `read` takes the body of a 200; `refused` the status and the body of any other answer, for engines that
    say in it that they do not have the model. Both raise `ValueError` for what is not this engine's.
    """

    path: str
    tells: frozenset[str]
    read: Callable[[bytes], Fingerprint]
    refused: Callable[[int, bytes], Fingerprint] | None = None


def members_of(content: bytes) -> Mapping[str, Any]:
    """A JSON object. Raises `ValueError`."""
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON object: {error}") from None


def cards_of(content: bytes) -> list[Mapping[str, Any]]:
    """The entries of OpenAI's `/v1/models`. Raises `ValueError`."""
    cards = members_of(content).get("data")
    if not isinstance(cards, list):
        raise ValueError("not a list of models")
    return [card for card in cards[:MAX_NAMES] if isinstance(card, dict)]


def names_of(cards: list[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(name for card in cards if (name := text_of(card.get("id"))))


def version_in(content: bytes) -> Fingerprint:
    """`{"version": "0.27.0"}`, as vLLM and trtllm-serve answer. Raises `ValueError`."""
    return Fingerprint(engine_version=text_of(members_of(content).get("version")))


def text_of(value: object) -> str | None:
    return value[:MAX_TEXT] if isinstance(value, str) and value else None


def count_of(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def dtype_of(value: object) -> str | None:
    """A data type by its common name: `torch.bfloat16` and `BF16` are `bfloat16`."""
    text = text_of(value)
    if text is None:
        return None
    text = text.removeprefix("torch.").lower()
    return _DTYPES.get(text, text)


_DTYPES: Final[Mapping[str, str]] = {
    "bf16": "bfloat16",
    "f16": "float16",
    "fp16": "float16",
    "half": "float16",
    "f32": "float32",
    "fp32": "float32",
    "float": "float32",
    "f8_e4m3": "float8_e4m3fn",
    "f8_e5m2": "float8_e5m2",
}


def quantization_of(value: object) -> str | None:
    """Its name in lower case; an engine that says `None` says that there is none."""
    text = text_of(value)
    return None if text is None else text.lower()
