"""How prompt and output fit into the context, and what vLLM says when they do not."""

from typing import Final

from loadtest.engine.vllm_errors import VllmError, bad_value

_LIMIT: Final = "This model's maximum context length is {} tokens. However, "
_SHORTER: Final = "Please reduce the length of the input prompt"
_CHARACTERS_PER_TOKEN: Final = 64
"""A text with more characters per token of context is refused before it is tokenised."""


def check_characters(text: str, max_model_len: int) -> None:
    """Raises Refusal for a text that is too long by its characters alone."""
    length, bound = len(text), _CHARACTERS_PER_TOKEN * max_model_len
    if length > bound:
        why = f"(more than {bound} characters, which is the upper bound for {max_model_len} input tokens)"
        given = f"your prompt contains {length} characters {why}. {_SHORTER}."
        raise bad_value(_LIMIT.format(max_model_len) + given, "input_text", length)


def output_limit(
    asked: int | None,
    prompt_tokens: int,
    max_model_len: int,
    *,
    default: int | None,
    recent: bool,
    name: str = "max_tokens",
) -> int:
    """The longest output; raises Refusal if prompt and output do not fit.

    Without a wish the default counts, as far as there is room; without a default, all the room there is.
    Recent versions cut a wish to the room as well, older ones refuse it. `name` is the field that the wish
    came in.
    """
    if asked is not None and asked < 1:
        raise bad_value(f"max_tokens must be at least 1, got {asked}.", "max_tokens", asked)
    if asked is not None and recent and asked > max_model_len:
        said = f"{name}={asked} cannot be greater than max_model_len={max_model_len}."
        raise bad_value(f"{said} Please request fewer output tokens.", name, asked)
    room = max_model_len - prompt_tokens
    if recent:
        _check_room(room, max_model_len)
    wanted = asked if asked is not None else max(1, min(room, room if default is None else default))
    if wanted > room and not recent:
        raise _too_long(wanted, prompt_tokens, max_model_len)
    return min(wanted, room)


def _check_room(room: int, max_model_len: int) -> None:
    if room < 0:
        over = max_model_len + 1
        least = f"your prompt contains at least {over} input tokens"
        given = f"{least}, which exceeds this limit even without any output tokens. {_SHORTER}."
        raise bad_value(_LIMIT.format(max_model_len) + given, "input_tokens", over)
    if room == 0:
        raise bad_value("max_tokens must be at least 1, got 0.", "max_tokens", 0)


def _too_long(wanted: int, prompt_tokens: int, max_model_len: int) -> VllmError:
    """The words of v0.27."""
    least = (
        f"you requested {wanted} output tokens and your prompt contains at least {prompt_tokens} input tokens"
    )
    given = f"{least}, for a total of at least {prompt_tokens + wanted} tokens. {_SHORTER}"
    message = f"{_LIMIT.format(max_model_len)}{given} or the number of requested output tokens."
    return bad_value(message, "input_tokens")
