"""vLLM's `/v1/responses`: text in, one message out, whole or as named events. Nothing is stored."""

from collections.abc import Sequence
from typing import Any

import msgspec

from loadtest.engine.dialect import GatheredResponse, Reply, Request, Response, StreamResponse
from loadtest.engine.sampling import Completion, Output
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_chat import ChatEndpoint, ChatJob
from loadtest.engine.vllm_errors import bad_request
from loadtest.engine.vllm_request import ChatRequest
from loadtest.engine.vllm_wire import error_events


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
        wanted = decode_body(request, ResponsesRequest)
        if wanted.previous_response_id is not None:
            raise bad_request("This server does not store responses.", "previous_response_id")
        if wanted.background:
            raise bad_request("background can only be used when `store` is true", "background")
        identity = self._base.identity(request, "resp", wanted.model, wanted.request_id)
        job = self._chat.submit(request, wanted.as_chat(), identity)
        answer = ResponseObject(job, wanted)
        if wanted.stream:
            return StreamResponse(job.generations, ResponsesEncoder(answer))

        def render(completions: tuple[Completion, ...]) -> Response:
            return Response.of_json(answer.ended(completions[0].text, completions[0].finish_reason))

        return GatheredResponse(job.generations, render)


class ResponseObject:
    """The response object in its states."""

    def __init__(self, job: ChatJob, wanted: ResponsesRequest) -> None:
        self._job = job
        self._wanted = wanted
        own = job.identity.id.partition("-")[2]
        self.id = f"resp_{own}"
        self.message_id = f"msg_{own}"

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
            "phase": None,
        }

    def ended(self, text: str, finish_reason: str) -> dict[str, Any]:
        """When all is generated, or as much as was allowed."""
        cut = {"reason": "max_output_tokens"} if finish_reason == "length" else None
        status = "incomplete" if cut else "failed" if finish_reason == "abort" else "completed"
        return self._value(status, [self.message("completed", [text_part(text, None)])], self._usage(), cut)

    def _usage(self) -> dict[str, Any]:
        generation, counts = self._job.generations[0], self._job.usage
        return {
            "input_tokens": generation.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": counts.cached,
                "cache_write_tokens": counts.created,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": generation.output_tokens,
            "output_tokens_details": {
                "reasoning_tokens": 0,
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": generation.prompt_tokens + generation.output_tokens,
        }

    def _value(
        self, status: str, output: Sequence[Any], usage: dict[str, Any] | None, cut: dict[str, Any] | None
    ) -> dict[str, Any]:
        wanted = self._wanted
        return {
            "id": self.id,
            "created_at": self._job.identity.created,
            "incomplete_details": cut,
            "instructions": wanted.instructions,
            "metadata": wanted.metadata,
            "model": self._job.identity.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0 if wanted.temperature is None else wanted.temperature,
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if wanted.top_p is None else wanted.top_p,
            "background": False,
            "max_output_tokens": self._job.generations[0].params.max_tokens,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": wanted.text,
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": usage,
            "user": wanted.user,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }


def text_part(text: str, logprobs: list[Any] | None) -> dict[str, Any]:
    """A content part of output text; `logprobs` is an empty list while it is written and null afterwards."""
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


class ResponsesEncoder:
    """Named events with a running number; there is no `[DONE]`, and the last one is `completed` however it
    ended."""

    def __init__(self, answer: ResponseObject) -> None:
        self._answer = answer
        self._number = 0
        self._texts: list[str] = []
        self._finish_reason = "abort"

    def output(self, _: int, output: Output) -> list[bytes]:
        events = [] if self._number else self._begin()
        self._finish_reason = output.finish_reason or self._finish_reason
        if output.text:
            self._texts.append(output.text)
            delta = {"delta": output.text, "logprobs": []}
            events.append(self._event("response.output_text.delta", self._where(), delta))
        return events

    def _begin(self) -> list[bytes]:
        answer = self._answer
        item = {"output_index": 0, "item": answer.message("in_progress", [])}
        return [
            self._event("response.created", {"response": answer.begun()}),
            self._event("response.in_progress", {"response": answer.begun()}),
            self._event("response.output_item.added", item),
            self._event("response.content_part.added", self._where(), {"part": text_part("", [])}),
        ]

    def end(self) -> list[bytes]:
        text = "".join(self._texts)
        answer, part = self._answer, text_part(text, None)
        item = {"output_index": 0, "item": answer.message("completed", [part])}
        return [
            self._event("response.output_text.done", self._where(), {"text": text, "logprobs": []}),
            self._event("response.content_part.done", self._where(), {"part": part}),
            self._event("response.output_item.done", item),
            self._event("response.completed", {"response": answer.ended(text, self._finish_reason)}),
        ]

    def error(self, message: str) -> tuple[bytes, ...]:
        return error_events(message)

    def _where(self) -> dict[str, Any]:
        return {"content_index": 0, "item_id": self._answer.message_id, "output_index": 0}

    def _event(self, name: str, *parts: dict[str, Any]) -> bytes:
        """Fields in alphabetical order."""
        value: dict[str, Any] = {"sequence_number": self._number, "type": name}
        for part in parts:
            value |= part
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(dict(sorted(value.items()))))
