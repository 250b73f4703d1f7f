"""vLLM's whole answers to chat and completions: every field present, nulls included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.engine.chain import logprob_of
from loadtest.engine.sampling import Completion
from loadtest.engine.tokens import token_text
from loadtest.engine.vllm_wire import Identity, chat_logprobs, completion_logprobs


@dataclass(frozen=True, slots=True)
class ChatChoice:
    """One choice of a whole chat answer."""

    completion: Completion
    finish_reason: str
    content: str | None
    tool_calls: tuple[dict[str, Any], ...] = ()
    show_token_ids: bool = False


def chat_answer(
    identity: Identity,
    choices: Sequence[ChatChoice],
    usage_value: dict[str, Any],
    prompt_token_ids: Sequence[int] | None = None,
    prompt_text: str | None = None,
    metrics: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A whole chat answer."""
    return {
        "id": identity.id,
        "object": "chat.completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [_chat_choice(index, choice) for index, choice in enumerate(choices)],
        "service_tier": None,
        "system_fingerprint": identity.fingerprint,
        "usage": usage_value,
        "prompt_logprobs": None,
        "prompt_token_ids": prompt_token_ids,
        "prompt_text": prompt_text,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": metrics,
    }


def _chat_choice(index: int, choice: ChatChoice) -> dict[str, Any]:
    calls = {"tool_calls": choice.tool_calls} if choice.tool_calls else {}
    return {
        "index": index,
        "message": {
            "role": "assistant",
            "content": choice.content,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            **calls,
            "reasoning": None,
        },
        "logprobs": chat_logprobs(choice.completion.logprobs),
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.completion.stop_reason,
        "token_ids": choice.completion.token_ids if choice.show_token_ids else None,
        "routed_experts": None,
    }


@dataclass(frozen=True, slots=True)
class TextChoice:
    """One choice of a whole completion, and the prompt it belongs to."""

    completion: Completion
    prompt_ids: Sequence[int]
    echoed: str = ""
    """The prompt's text, where it is to stand before the output."""
    show_token_ids: bool = False
    prompt_logprobs: int | None = None
    """Alternatives to tell for every token of the prompt."""


def completion_answer(
    identity: Identity, choices: Sequence[TextChoice], usage_value: dict[str, Any], *, recent: bool
) -> dict[str, Any]:
    """A whole completion."""
    more = {"ec_transfer_params": None, "metrics": None} if recent else {}
    return {
        "id": identity.id,
        "object": "text_completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [_text_choice(index, choice, recent=recent) for index, choice in enumerate(choices)],
        "service_tier": None,
        "system_fingerprint": identity.fingerprint,
        "usage": usage_value,
        "kv_transfer_params": None,
        **more,
    }


def _text_choice(index: int, choice: TextChoice, *, recent: bool) -> dict[str, Any]:
    completion = choice.completion
    alternatives = choice.prompt_logprobs
    return {
        "index": index,
        "text": choice.echoed + completion.text,
        "logprobs": completion_logprobs(completion.logprobs, len(choice.echoed)),
        "finish_reason": completion.finish_reason,
        "stop_reason": completion.stop_reason,
        "token_ids": completion.token_ids if choice.show_token_ids else None,
        "prompt_logprobs": None if alternatives is None else prompt_logprobs(choice.prompt_ids, alternatives),
        "prompt_token_ids": choice.prompt_ids if choice.show_token_ids else None,
        **({"routed_experts": None} if recent else {}),
    }


def prompt_logprobs(prompt_ids: Sequence[int], alternatives: int) -> list[dict[str, Any] | None]:
    """Per prompt token: its own log-probability and the alternatives', by id; the first token has none."""
    return [None, *(_ranked(token_id, alternatives) for token_id in prompt_ids[1:])]


def _ranked(token_id: int, alternatives: int) -> dict[str, Any]:
    entry = logprob_of(token_id, max(1, alternatives))
    return {
        str(one): {"logprob": logprob, "rank": rank, "decoded_token": token_text(one)}
        for rank, (one, logprob) in enumerate(entry.top, 1)
    }
