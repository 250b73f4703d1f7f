"""vLLM's chat and completion bytes, to the key order, as of v0.27. Pure: values in, events out.

Chunks are dumps without unset fields and with explicit nulls, so absent and null differ; the frequent
chunks are put together from encoded pieces because they are made for every token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from loadtest.engine.sampling import Completion, TokenLogprob
from loadtest.engine.tokens import token_text

DONE: Final = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


def error_events(message: str) -> tuple[bytes, bytes]:
    """An error inside a stream: Python's spaced JSON, and the end marker all the same."""
    return (
        b'data: {"error": {"message": %b, "type": "InternalServerError", "param": null, "code": 500}}\n\n'
        % _encode(message),
        DONE,
    )


def event(value: object) -> bytes:
    """One `data:` event of compact JSON."""
    return b"data: %b\n\n" % _encode(value)


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int | None = None) -> dict[str, Any]:
    """The usage object of chunks; `cached_tokens` appears only where given."""
    value: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }
    if cached_tokens is not None:
        value["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return value


def full_usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int | None) -> dict[str, Any]:
    """The usage object of whole answers: every field present."""
    details = None if cached_tokens is None else {"cached_tokens": cached_tokens}
    return {
        **usage(prompt_tokens, completion_tokens),
        "prompt_tokens_details": details,
        "completion_tokens_details": None,
    }


def chat_logprobs(entries: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    """`logprobs` of a chat choice."""
    if entries is None:
        return None
    return {
        "content": [
            {
                **_logprob(entry.token_id, entry.logprob),
                "top_logprobs": [_logprob(token_id, logprob) for token_id, logprob in entry.top],
            }
            for entry in entries
        ]
    }


def _logprob(token_id: int, logprob: float) -> dict[str, Any]:
    text = token_text(token_id)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def completion_logprobs(entries: Sequence[TokenLogprob] | None, offset: int = 0) -> dict[str, Any] | None:
    """`logprobs` of a completion choice; `offset` is where its text starts, in characters."""
    if entries is None:
        return None
    tokens = [token_text(entry.token_id) for entry in entries]
    offsets = []
    for text in tokens:
        offsets.append(offset)
        offset += len(text)
    return {
        "text_offset": offsets,
        "token_logprobs": [entry.logprob for entry in entries],
        "tokens": tokens,
        "top_logprobs": [
            {token_text(token_id): logprob for token_id, logprob in entry.top} or None for entry in entries
        ],
    }


@dataclass(frozen=True, slots=True)
class Identity:
    """What every chunk of one response repeats."""

    id: str
    created: int
    """Unix seconds."""
    model: str
    fingerprint: str | None = None

    def head(self, kind: str) -> bytes:
        """Up to and including `"choices":[`."""
        return b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            _encode(self.id),
            kind.encode(),
            self.created,
            _encode(self.model),
        )

    def fingerprint_part(self) -> bytes:
        return b"" if self.fingerprint is None else b',"system_fingerprint":%b' % _encode(self.fingerprint)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a choice ended. `fingerprinted` says that no usage chunk follows to carry the fingerprint."""

    finish_reason: str
    stop_reason: str | int | None
    fingerprinted: bool


class ChatChunks:
    """Chunks of one chat stream."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._head = identity.head("chat.completion.chunk")

    def role(
        self, choice: int, prompt_token_ids: Sequence[int] | None, usage_now: dict[str, Any] | None = None
    ) -> bytes:
        """The first chunk of a choice."""
        return b"".join(
            (
                self._head,
                b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
                % choice,
                _usage_part(usage_now),
                b',"prompt_token_ids":%b,"prompt_text":null}\n\n' % _encode(prompt_token_ids),
            )
        )

    def delta(
        self,
        choice: int,
        delta: bytes,
        *,
        token_ids: Sequence[int] | None = None,
        logprobs: bytes = b"null",
        ending: Ending | None = None,
        usage_now: dict[str, Any] | None = None,
    ) -> bytes:
        """A later chunk; `delta` and `logprobs` are JSON already."""
        return b"".join(
            (
                self._head,
                b'{"index":%d,"delta":%b,"logprobs":%b,' % (choice, delta, logprobs),
                b'"finish_reason":null,' if ending is None else _ending_part(ending),
                b'"token_ids":%b}]' % (b"null" if token_ids is None else _encode(token_ids)),
                _usage_part(usage_now),
                self._identity.fingerprint_part() if ending is not None and ending.fingerprinted else b"",
                b"}\n\n",
            )
        )

    def usage(self, value: dict[str, Any]) -> bytes:
        """The chunk without choices."""
        return self._head + b'],"usage":%b' % _encode(value) + self._identity.fingerprint_part() + b"}\n\n"


def content_delta(text: str) -> bytes:
    """The delta of plain text."""
    return b'{"content":%b}' % _encode(text)


def _ending_part(ending: Ending) -> bytes:
    return b'"finish_reason":%b,"stop_reason":%b,' % (
        _encode(ending.finish_reason),
        _encode(ending.stop_reason),
    )


def _usage_part(value: dict[str, Any] | None) -> bytes:
    return b"" if value is None else b',"usage":%b' % _encode(value)


class CompletionChunks:
    """Chunks of one text completion stream."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._head = identity.head("text_completion")

    def text(
        self,
        choice: int,
        text: str,
        *,
        prompt_token_ids: Sequence[int] | None = None,
        token_ids: Sequence[int] | None = None,
        logprobs: dict[str, Any] | None = None,
        ending: Ending | None = None,
        usage_now: dict[str, Any] | None = None,
    ) -> bytes:
        """Text of one choice, and its end."""
        finish, stop = (None, None) if ending is None else (ending.finish_reason, ending.stop_reason)
        return b"".join(
            (
                self._head,
                b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b,"stop_reason":%b,'
                % (choice, _encode(text), _encode(logprobs), _encode(finish), _encode(stop)),
                b'"prompt_token_ids":%b,"token_ids":%b}]' % (_encode(prompt_token_ids), _encode(token_ids)),
                _usage_part(usage_now),
                self._identity.fingerprint_part() if ending is not None and ending.fingerprinted else b"",
                b"}\n\n",
            )
        )

    def usage(self, value: dict[str, Any]) -> bytes:
        """The chunk without choices."""
        return self._head + b'],"usage":%b' % _encode(value) + self._identity.fingerprint_part() + b"}\n\n"


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
) -> dict[str, Any]:
    """A whole chat answer: every field present, nulls included."""
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
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
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
