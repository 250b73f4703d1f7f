"""vLLM's `/v1/messages`, the Anthropic shape: a chat underneath, other words around it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from loadtest.engine.chat_template import content_text
from loadtest.engine.dialect import GatheredResponse, Refusal, Reply, Request, Response, StreamResponse
from loadtest.engine.sampling import Completion, Output
from loadtest.engine.tokens import encode
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_chat import ChatEndpoint, ChatJob, prompt_text, tool_finish
from loadtest.engine.vllm_errors import VllmError
from loadtest.engine.vllm_options import VllmOptions
from loadtest.engine.vllm_request import ChatRequest
from loadtest.engine.vllm_tools import ToolStream, call_id

_STOP_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
)


class MessagesRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    messages: list[dict[str, Any]]
    max_tokens: int = 16
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = False
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None

    def as_chat(self) -> ChatRequest:
        """The chat request that asks for the same."""
        system = [{"role": "system", "content": content_text(self.system)}] if self.system else []
        turns = [{**turn, "content": _texts_of(turn.get("content"))} for turn in self.messages]
        return ChatRequest(
            messages=[*system, *turns],
            model=self.model,
            stream=self.stream,
            max_tokens=self.max_tokens,
            stop=self.stop_sequences,
            temperature=self.temperature,
            top_p=self.top_p,
            tools=[_tool(tool) for tool in self.tools or ()] or None,
            tool_choice=self._tool_choice(),
        )

    def _tool_choice(self) -> str | dict[str, Any] | None:
        choice = self.tool_choice or {}
        if choice.get("type") == "tool":
            return {"type": "function", "function": {"name": choice.get("name")}}
        return {"any": "required", "auto": "auto", "none": "none"}.get(choice.get("type", ""))


def _texts_of(content: object) -> str:
    """The text of a turn; what tools were asked and gave is part of it."""
    if not isinstance(content, list):
        return content_text(content)
    parts = []
    for block in content:
        if isinstance(block, Mapping) and block.get("type") in ("tool_use", "tool_result"):
            parts.append(msgspec.json.encode(block.get("input") or block.get("content")).decode())
        else:
            parts.append(content_text([block]))
    return "".join(parts)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool.get("input_schema"),
    }
    return {"type": "function", "function": function}


class MessagesEndpoint:
    """Whole messages, streams, and the counting of tokens."""

    def __init__(self, base: VllmBase, chat: ChatEndpoint) -> None:
        self._base = base
        self._chat = chat

    async def handle(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except VllmError as error:
            value = {"type": error.kind, "message": error.message(self._base.flags)}
            raise Refusal(Response.of_json({"type": "error", "error": value}, error.status)) from error

    def _answer(self, request: Request) -> Reply:
        wanted = decode_body(request, MessagesRequest)
        identity = self._base.identity(request, "chatcmpl", wanted.model, None)
        message = Message(self._chat.submit(request, wanted.as_chat(), identity), self._base.flags)
        if wanted.stream:
            return StreamResponse(message.job.generations, MessagesEncoder(message))

        def render(completions: tuple[Completion, ...]) -> Response:
            return Response.of_json(message.whole(completions[0]))

        return GatheredResponse(message.job.generations, render)

    async def count_tokens(self, request: Request) -> Reply:
        wanted = decode_body(request, MessagesRequest)
        self._base.lora_of(wanted.model)
        count = len(encode(prompt_text(wanted.as_chat())))
        return Response.of_json(
            {"input_tokens": count, "context_management": {"original_input_tokens": count}}
        )


class Message:
    """An answer in Anthropic's words."""

    def __init__(self, job: ChatJob, flags: VllmOptions) -> None:
        self.job = job
        self._flags = flags

    @property
    def usage(self) -> dict[str, int]:
        """Token counts, those of the cache only where the server tells them."""
        generation, counts = self.job.generations[0], self.job.usage
        value = {"input_tokens": generation.prompt_tokens, "output_tokens": generation.output_tokens}
        if self._flags.enable_prompt_tokens_details:
            value["cache_creation_input_tokens"] = counts.created
            value["cache_read_input_tokens"] = counts.cached
        return value

    def block(self, completion: Completion | None) -> dict[str, Any]:
        """The one content block: complete, or empty as a stream begins it."""
        tool = self.job.tool
        if tool is None:
            return {"type": "text", "text": "" if completion is None else completion.text}
        written = "" if completion is None else tool.arguments(completion.token_ids)
        value = msgspec.json.decode(written) if completion and len(completion.token_ids) >= tool.end else {}
        return {"type": "tool_use", "id": call_id(self.job.identity.id, 0), "name": tool.name, "input": value}

    def stop_reason(self, finish_reason: str) -> str:
        """Anthropic's word for a finish reason."""
        said = finish_reason if self.job.tool is None else tool_finish(self.job.chat, finish_reason)
        return _STOP_REASONS.get(said, "end_turn")

    def whole(self, completion: Completion) -> dict[str, Any]:
        """A whole message, without nulls."""
        return {
            "id": self.job.identity.id,
            "type": "message",
            "role": "assistant",
            "content": [self.block(completion)],
            "model": self.job.identity.model,
            "stop_reason": self.stop_reason(completion.finish_reason),
            "usage": self.usage,
        }

    def started(self) -> dict[str, Any]:
        """The message of the first event."""
        return {
            "id": self.job.identity.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self.job.identity.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": self.job.generations[0].prompt_tokens, "output_tokens": 0},
        }


class MessagesEncoder:
    """Named events; the end is `message_stop`, there is no `[DONE]`."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._tool = None if message.job.tool is None else ToolStream(message.job.tool)
        self._begun = False
        self._block_open = False
        self._finish_reason = "stop"

    def output(self, _: int, output: Output) -> list[bytes]:
        events = [] if self._begun else [_event("message_start", {"message": self._message.started()})]
        self._begun = True
        self._finish_reason = output.finish_reason or self._finish_reason
        text = output.text if self._tool is None else self._tool.push(output)[1]
        if not text:
            return events
        if not self._block_open:
            self._block_open = True
            block = {"content_block": self._message.block(None), "index": 0}
            events.append(_event("content_block_start", block))
        delta = {"type": "text_delta", "text": text}
        if self._tool is not None:
            delta = {"type": "input_json_delta", "partial_json": text}
        return [*events, _event("content_block_delta", {"delta": delta, "index": 0})]

    def end(self) -> list[bytes]:
        message = self._message
        stop = {"stop_reason": message.stop_reason(self._finish_reason), "stop_sequence": None}
        events = [_event("content_block_stop", {"index": 0})] if self._block_open else []
        return [
            *events,
            _event("message_delta", {"delta": stop, "usage": message.usage}),
            _event("message_stop", {}),
        ]

    def error(self, message: str) -> list[bytes]:
        return [_event("error", {"error": {"type": "internal_error", "message": message}})]


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **fields}))
