"""vLLM's chat and completion bytes, to the key order, as of v0.27. Pure: values in, events out.

Chunks are dumps without unset fields and with explicit nulls, so absent and null differ; the frequent
chunks are put together from encoded pieces because they are made for every token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from loadtest.engine.sampling import TokenLogprob
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
        self,
        choice: int,
        prompt_token_ids: Sequence[int] | None,
        usage_now: dict[str, Any] | None = None,
        prompt_text: str | None = None,
    ) -> bytes:
        """The first chunk of a choice."""
        return b"".join(
            (
                self._head,
                b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
                % choice,
                _usage_part(usage_now),
                b',"prompt_token_ids":%b,"prompt_text":%b}\n\n'
                % (_encode(prompt_token_ids), _encode(prompt_text)),
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
