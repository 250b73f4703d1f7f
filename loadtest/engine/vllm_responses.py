"""vLLM's `/v1/responses`: text in, one message out, whole or as named events. Nothing is stored."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import msgspec

from loadtest.engine.core import Generation
from loadtest.engine.dialect import GatheredResponse, Reply, Request, Response, StreamResponse
from loadtest.engine.sampling import Completion, Output
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_chat import ChatEndpoint
from loadtest.engine.vllm_errors import bad_request
from loadtest.engine.vllm_request import ChatRequest, decode_body
from loadtest.engine.vllm_wire import Identity, error_events


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    previous_response_id: str | None = None
    background: bool | None = False
    user: str | None = None
    request_id: str | None = None
    cache_salt: str | None = None
    priority: int = 0

    def as_chat(self) -> ChatRequest:
        """The chat request that asks for the same."""
        turns = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        return ChatRequest(
            messages=[*system, *turns],
            model=self.model,
            stream=self.stream,
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=self._response_format(),
            cache_salt=self.cache_salt,
            priority=self.priority,
        )

    def _response_format(self) -> dict[str, Any] | None:
        wanted = (self.text or {}).get("format") or {}
        if wanted.get("type") != "json_schema":
            return wanted or None
        return {"type": "json_schema", "json_schema": {"schema": wanted.get("schema")}}


class ResponsesEndpoint:
    """Whole responses and streams."""

    def __init__(self, base: VllmBase, chat: ChatEndpoint) -> None:
        self._base = base
        self._chat = chat

    async def handle(self, request: Request) -> Reply:
        wanted = decode_body(request.body, request.headers.get("content-type"), ResponsesRequest)
        if wanted.previous_response_id is not None:
            raise bad_request("This server does not store responses.", "previous_response_id")
        if wanted.background:
            raise bad_request("background can only be used when `store` is true", "background")
        generation = self._chat.submit(request, wanted.as_chat())[0]
        answer = ResponseObject(self._base.identity(request, "resp", wanted.model, wanted.request_id), wanted)
        headers = self._base.answer_headers(request)
        if wanted.stream:
            return StreamResponse((generation,), ResponsesEncoder(answer, generation), headers=headers)

        def render(completions: tuple[Completion, ...]) -> Response:
            completion = completions[0]
            value = answer.ended(completion.text, completion.finish_reason, generation)
            return Response.of_json(value, headers=headers)

        return GatheredResponse((generation,), render)


class ResponseObject:
    """The response object in its states."""

    def __init__(self, identity: Identity, wanted: ResponsesRequest) -> None:
        self._identity = identity
        self._wanted = wanted
        self.id = "resp_" + identity.id.partition("-")[2]
        self.message_id = f"msg_{uuid4().hex}"

    def begun(self) -> dict[str, Any]:
        """While it is generated."""
        return self._value("in_progress", [], None, None)

    def message(self, status: str, content: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The one output item."""
        return {
            "id": self.message_id,
            "content": content,
            "role": "assistant",
            "status": status,
            "type": "message",
        }

    def ended(self, text: str, finish_reason: str, generation: Generation) -> dict[str, Any]:
        """When all is generated, or as much as was allowed."""
        usage = {
            "input_tokens": generation.prompt_tokens,
            "input_tokens_details": {"cached_tokens": generation.cached_tokens},
            "output_tokens": generation.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": generation.prompt_tokens + generation.output_tokens,
        }
        cut = {"reason": "max_output_tokens"} if finish_reason == "length" else None
        status = "incomplete" if cut else "failed" if finish_reason == "abort" else "completed"
        output = [self.message("incomplete" if cut else "completed", [text_part(text)])]
        return self._value(status, output, usage, cut)

    def _value(
        self, status: str, output: Sequence[Any], usage: dict[str, Any] | None, cut: dict[str, Any] | None
    ) -> dict[str, Any]:
        wanted = self._wanted
        return {
            "id": self.id,
            "created_at": self._identity.created,
            "incomplete_details": cut,
            "instructions": wanted.instructions,
            "metadata": wanted.metadata,
            "model": self._identity.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0 if wanted.temperature is None else wanted.temperature,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0 if wanted.top_p is None else wanted.top_p,
            "background": False,
            "max_output_tokens": wanted.max_output_tokens,
            "previous_response_id": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": wanted.text,
            "truncation": "disabled",
            "usage": usage,
            "user": wanted.user,
        }


def text_part(text: str) -> dict[str, Any]:
    """A content part of output text."""
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": []}


class ResponsesEncoder:
    """Named events with a running number; there is no `[DONE]`."""

    def __init__(self, answer: ResponseObject, generation: Generation) -> None:
        self._answer = answer
        self._generation = generation
        self._number = 0
        self._texts: list[str] = []
        self._finish_reason = "abort"

    def output(self, _: int, output: Output) -> list[bytes]:
        events = [] if self._number else self._begin()
        self._finish_reason = output.finish_reason or self._finish_reason
        if output.text:
            self._texts.append(output.text)
            events.append(
                self._event(
                    "response.output_text.delta", self._where(), {"delta": output.text, "logprobs": []}
                )
            )
        return events

    def _begin(self) -> list[bytes]:
        answer = self._answer
        item = {"output_index": 0, "item": answer.message("in_progress", [])}
        return [
            self._event("response.created", {"response": answer.begun()}),
            self._event("response.in_progress", {"response": answer.begun()}),
            self._event("response.output_item.added", item),
            self._event("response.content_part.added", self._where(), {"part": text_part("")}),
        ]

    def end(self) -> list[bytes]:
        text = "".join(self._texts)
        answer = self._answer
        value = answer.ended(text, self._finish_reason, self._generation)
        name = {"incomplete": "response.incomplete", "failed": "response.failed"}.get(value["status"])
        item = {"output_index": 0, "item": answer.message("completed", [text_part(text)])}
        return [
            self._event("response.output_text.done", self._where(), {"text": text, "logprobs": []}),
            self._event("response.content_part.done", self._where(), {"part": text_part(text)}),
            self._event("response.output_item.done", item),
            self._event(name or "response.completed", {"response": value}),
        ]

    def error(self, message: str) -> tuple[bytes, ...]:
        return error_events(message)

    def _where(self) -> dict[str, Any]:
        return {"content_index": 0, "item_id": self._answer.message_id, "output_index": 0}

    def _event(self, name: str, *parts: dict[str, Any]) -> bytes:
        value: dict[str, Any] = {}
        for part in parts:
            value |= part
        value |= {"sequence_number": self._number, "type": name}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))
