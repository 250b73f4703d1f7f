"""vLLM's `/v1/messages`, the Anthropic shape: a chat underneath, other words around it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from loadtest.engine.chat_template import content_text
from loadtest.engine.core import Generation
from loadtest.engine.dialect import GatheredResponse, Refusal, Reply, Request, Response, StreamResponse
from loadtest.engine.sampling import Completion, Output
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_chat import ChatEndpoint, call_id, prompt_ids, tool_finish
from loadtest.engine.vllm_errors import VllmError
from loadtest.engine.vllm_request import ChatRequest, decode_body
from loadtest.engine.vllm_wire import Identity

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
            raise Refusal(_error(error)) from error

    def _answer(self, request: Request) -> Reply:
        wanted = decode_body(request.body, request.headers.get("content-type"), MessagesRequest)
        chat = wanted.as_chat()
        generation = self._chat.submit(request, chat)[0]
        identity = self._base.identity(request, "chatcmpl", wanted.model, None)
        headers = self._base.answer_headers(request)
        if wanted.stream:
            encoder = MessagesEncoder(identity, chat, generation)
            return StreamResponse((generation,), encoder, headers=headers)

        def render(completions: tuple[Completion, ...]) -> Response:
            value = _message(identity, chat, generation, completions[0])
            return Response.of_json(value, headers=headers)

        return GatheredResponse((generation,), render)

    async def count_tokens(self, request: Request) -> Reply:
        wanted = decode_body(request.body, request.headers.get("content-type"), MessagesRequest)
        self._base.lora_of(wanted.model)
        count = len(prompt_ids(wanted.as_chat()))
        return Response.of_json(
            {"input_tokens": count, "context_management": {"original_input_tokens": count}}
        )


def _error(error: VllmError) -> Response:
    value = {"type": "error", "error": {"type": error.kind, "message": error.message}}
    return Response.of_json(value, error.status)


def _usage(generation: Generation) -> dict[str, int]:
    return {"input_tokens": generation.prompt_tokens, "output_tokens": generation.output_tokens}


def _block(identity: Identity, chat: ChatRequest, text: str) -> dict[str, Any]:
    """The one content block of an answer."""
    if chat.forced_tool is None:
        return {"type": "text", "text": text}
    arguments = msgspec.json.decode(text) if text else {}
    name = chat.forced_tool.get("name")
    return {"type": "tool_use", "id": call_id(identity, 0), "name": name, "input": arguments}


def _stop_reason(chat: ChatRequest, reason: str) -> str:
    said = tool_finish(chat, reason) if chat.forced_tool is not None else reason
    return _STOP_REASONS.get(said, "end_turn")


def _message(
    identity: Identity, chat: ChatRequest, generation: Generation, completion: Completion
) -> dict[str, Any]:
    """A whole message, without nulls."""
    return {
        "id": identity.id,
        "type": "message",
        "role": "assistant",
        "content": [_block(identity, chat, completion.text)],
        "model": identity.model,
        "stop_reason": _stop_reason(chat, completion.finish_reason),
        "usage": _usage(generation),
    }


class MessagesEncoder:
    """Named events; the end is `message_stop`, there is no `[DONE]`."""

    def __init__(self, identity: Identity, chat: ChatRequest, generation: Generation) -> None:
        self._identity = identity
        self._chat = chat
        self._generation = generation
        self._begun = False
        self._block_open = False
        self._finish_reason = "stop"

    def output(self, _: int, output: Output) -> list[bytes]:
        events = [] if self._begun else [self._start()]
        self._finish_reason = output.finish_reason or self._finish_reason
        if not output.text:
            return events
        if not self._block_open:
            self._block_open = True
            block = _block(self._identity, self._chat, "")
            events.append(_event("content_block_start", {"content_block": block, "index": 0}))
        if self._chat.forced_tool is None:
            delta = {"type": "text_delta", "text": output.text}
        else:
            delta = {"type": "input_json_delta", "partial_json": output.text}
        events.append(_event("content_block_delta", {"delta": delta, "index": 0}))
        return events

    def _start(self) -> bytes:
        self._begun = True
        message: dict[str, Any] = {
            "id": self._identity.id,
            "content": [],
            "model": self._identity.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": self._generation.prompt_tokens, "output_tokens": 0},
        }
        return _event("message_start", {"message": message})

    def end(self) -> list[bytes]:
        stop = {"stop_reason": _stop_reason(self._chat, self._finish_reason)}
        events = [_event("content_block_stop", {"index": 0})] if self._block_open else []
        return [
            *events,
            _event("message_delta", {"delta": stop, "usage": _usage(self._generation)}),
            _event("message_stop", {}),
        ]

    def error(self, message: str) -> list[bytes]:
        return [_event("error", {"error": {"type": "internal_error", "message": message}})]


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **fields}))
