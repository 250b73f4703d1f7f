"""The events of one chat stream."""

from collections.abc import Sequence
from typing import Any

import msgspec

from loadtest.engine.chat_template import content_text
from loadtest.engine.core import Generation
from loadtest.engine.sampling import Output
from loadtest.engine.tokens import decode
from loadtest.engine.vllm_request import ChatRequest
from loadtest.engine.vllm_tools import ToolPlan, ToolStream, arguments_delta, name_delta
from loadtest.engine.vllm_usage import UsageReport
from loadtest.engine.vllm_wire import (
    DONE,
    ChatChunks,
    Ending,
    Identity,
    chat_logprobs,
    content_delta,
    error_events,
)


class ChatEncoder:
    """Role chunks of all choices with the first output of any, then deltas, then usage and `[DONE]`."""

    def __init__(
        self,
        identity: Identity,
        chat: ChatRequest,
        generations: Sequence[Generation],
        usage: UsageReport,
        tool: ToolPlan | None,
        *,
        forced_usage: bool,
    ) -> None:
        self._chunks = ChatChunks(identity)
        self._id = identity.id
        self._chat = chat
        self._generations = generations
        self._usage = usage
        self._wants_usage = chat.wants_usage or forced_usage
        self._continuous = chat.wants_continuous_usage or forced_usage
        self._tools = [ToolStream(tool) for _ in generations] if tool is not None else None
        self._begun = False

    def output(self, choice: int, output: Output) -> list[bytes]:
        events = [] if self._begun else self._begin()
        ending = self._ending(output)
        deltas = [content_delta(output.text)] if self._tools is None else self._tool_deltas(choice, output)
        if ending is not None and not deltas:
            deltas = [b"{}"]
        return events + [
            self._delta(choice, delta, output, ending if last == len(deltas) else None)
            for last, delta in enumerate(deltas, 1)
        ]

    def _begin(self) -> list[bytes]:
        self._begun = True
        first = self._generations[0]
        ids = first.prompt_ids if self._chat.return_token_ids else None
        text = decode(first.prompt_ids, specials=True) if self._chat.return_prompt_text else None
        usage = self._usage.so_far(first, ()) if self._continuous else None
        choices = range(len(self._generations))
        events = [self._chunks.role(choice, ids, usage, text) for choice in choices]
        if self._chat.echo:
            said = content_delta(content_text(self._chat.messages[-1].get("content")))
            events += [self._chunks.delta(choice, said, usage_now=usage) for choice in choices]
        return events

    def _ending(self, output: Output) -> Ending | None:
        reason: str | None = output.finish_reason
        if reason is None:
            return None
        if self._tools is not None and reason == "stop" and self._chat.tool_choice == "required":
            reason = "tool_calls"
        return Ending(reason, output.stop_reason, fingerprinted=not self._wants_usage)

    def _tool_deltas(self, choice: int, output: Output) -> list[bytes]:
        """What the parser passes on of this output: often nothing."""
        if self._tools is None:
            return []
        name, piece = self._tools[choice].push(output)
        deltas = [name_delta(self._id, choice, name)] if name is not None else []
        return [*deltas, arguments_delta(piece)] if piece else deltas

    def _delta(self, choice: int, delta: bytes, output: Output, ending: Ending | None) -> bytes:
        logprobs = output.logprobs
        first = self._generations[0]
        usage: dict[str, Any] | None = None
        if self._continuous:
            usage = self._usage.so_far(first, (self._generations[choice],))
        return self._chunks.delta(
            choice,
            delta,
            token_ids=output.token_ids if self._chat.return_token_ids else None,
            logprobs=b"null" if logprobs is None else msgspec.json.encode(chat_logprobs(logprobs)),
            ending=ending,
            usage_now=usage,
        )

    def end(self) -> list[bytes]:
        return [self._chunks.usage(self._usage.last_chunk()), DONE] if self._wants_usage else [DONE]

    def error(self, message: str) -> tuple[bytes, ...]:
        return error_events(message)
