"""trtllm-serve's `/v1/responses`: text in, text out, whole or streamed, kept for later reading.

The smallest useful part of OpenAI's Responses API: no tools, no reasoning, no background.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import msgspec
from msgspec import Struct

from loadtest.engine import trtllm_wire as wire
from loadtest.engine.chat_template import render_chat
from loadtest.engine.core import EngineCore, EngineDead, EngineOptions, Generation
from loadtest.engine.dialect import GatheredResponse, Refusal, Reply, Request, Response, StreamResponse
from loadtest.engine.sampling import Completion, Output, SamplingParams
from loadtest.engine.tokens import encode


class ResponsesRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`input` is a text or a list of messages; lengths in tokens."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = True
    stream: bool | None = False
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None


class OutputText(Struct, frozen=True, tag="output_text"):
    text: str
    annotations: tuple[str, ...] = ()


class OutputMessage(Struct, frozen=True, tag="message"):
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    content: tuple[OutputText, ...]
    role: str = "assistant"


class CachedTokens(Struct, frozen=True):
    cached_tokens: int


class ReasoningTokens(Struct, frozen=True):
    reasoning_tokens: int = 0


class Usage(Struct, frozen=True):
    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class ResponseObject(Struct, frozen=True, kw_only=True):
    id: str
    object: str = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "cancelled"]
    model: str
    instructions: str | None
    output: tuple[OutputMessage, ...]
    usage: Usage | None


class Responses:
    """The endpoint and its store."""

    def __init__(self, core: EngineCore, options: EngineOptions) -> None:
        self._core = core
        self._options = options
        self._kept: dict[str, ResponseObject] = {}

    async def create(self, request: Request) -> Reply:
        """`POST /v1/responses`."""
        try:
            asked = msgspec.json.decode(request.body, type=ResponsesRequest)
        except msgspec.DecodeError as wrong:
            raise Refusal(Response.of_json(wire.StringError(f"1 validation error: {wrong}"), 400)) from wrong
        generation = self._submitted(asked)
        draft = Draft(f"resp_{uuid4().hex}", f"msg_{uuid4().hex}", asked, int(time.time()), generation)
        if asked.stream:
            events = ResponseEvents(draft, self)
            return StreamResponse((generation,), events, wire.EVENT_STREAM)

        def render(completions: tuple[Completion, ...]) -> Response:
            made = draft.finished(completions[0].text, completions[0].finish_reason)
            self.keep(draft, made)
            return Response.of_json(made)

        return GatheredResponse((generation,), render)

    async def read(self, request: Request) -> Reply:
        """`GET /v1/responses/{id}`."""
        return Response.of_json(self._found(request))

    async def delete(self, request: Request) -> Reply:
        """`DELETE /v1/responses/{id}`."""
        found = self._found(request)
        del self._kept[found.id]
        return Response.of_json({"id": found.id, "object": "response", "deleted": True})

    def keep(self, draft: "Draft", made: ResponseObject) -> None:
        """Store a finished answer unless the client declined."""
        if draft.asked.store is not False:
            self._kept[made.id] = made

    def _found(self, request: Request) -> ResponseObject:
        name = request.params["id"]
        if not name.startswith("resp"):
            message = f"Invalid 'response_id': '{name}'. Expected an ID that begins with 'resp'."
            raise Refusal(_refused(400, message))
        found = self._kept.get(name)
        if found is None:
            raise Refusal(_refused(404, f"Response with id '{name}' not found."))
        return found

    def _submitted(self, asked: ResponsesRequest) -> Generation:
        given = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input
        system = [{"role": "system", "content": asked.instructions}] if asked.instructions else []
        prompt = encode(render_chat([*system, *given]))
        limit = self._options.max_model_len
        longest = limit - len(prompt) if asked.max_output_tokens is None else asked.max_output_tokens
        if longest < 1 or len(prompt) + longest > limit:
            message = wire.too_long(len(prompt), longest, limit)
            raise Refusal(Response.of_json(wire.FlatError(message=message), 400))
        temperature = 1.0 if asked.temperature is None else asked.temperature
        try:
            return self._core.submit(prompt, SamplingParams(max_tokens=longest, temperature=temperature))
        except (EngineDead, ValueError) as failure:
            raise Refusal(Response.of_json(wire.FlatError(message=str(failure)), 400)) from failure


def _refused(status: int, message: str) -> Response:
    error = wire.FlatError(message=message, type="InvalidRequestError", code=status)
    return Response.of_json(error, status)


@dataclass(frozen=True, slots=True)
class Draft:
    """One answer in the making."""

    response_id: str
    message_id: str
    asked: ResponsesRequest
    created_at: int
    generation: Generation

    def begun(self) -> ResponseObject:
        return self._object("in_progress", (), None)

    def finished(self, text: str, reason: str) -> ResponseObject:
        """`length` makes it incomplete, an abort cancelled."""
        status: Literal["completed", "incomplete"] = "incomplete" if reason == "length" else "completed"
        message = OutputMessage(self.message_id, status, (OutputText(text),))
        one = self.generation
        usage = Usage(
            one.prompt_tokens,
            CachedTokens(one.cached_tokens),
            one.output_tokens,
            ReasoningTokens(),
            one.prompt_tokens + one.output_tokens,
        )
        return self._object("cancelled" if reason == "abort" else status, (message,), usage)

    def _object(
        self,
        status: Literal["in_progress", "completed", "incomplete", "cancelled"],
        output: tuple[OutputMessage, ...],
        usage: Usage | None,
    ) -> ResponseObject:
        return ResponseObject(
            id=self.response_id,
            created_at=self.created_at,
            status=status,
            model=self.asked.model,
            instructions=self.asked.instructions,
            output=output,
            usage=usage,
        )


@dataclass(slots=True)
class ResponseEvents:
    """Named events, numbered from 0; the whole answer comes once more in the last one."""

    draft: Draft
    store: Responses
    _texts: list[str] = field(default_factory=list, init=False)
    _number: int = field(default=0, init=False)
    _reason: str = field(default="stop", init=False)

    def output(self, _: int, output: Output) -> Sequence[bytes]:
        frames = [] if self._number else self._opening()
        if output.text:
            frames.append(self._event("response.output_text.delta", **self._where(), delta=output.text))
        self._texts.append(output.text)
        self._reason = output.finish_reason or self._reason
        return frames

    def end(self) -> Sequence[bytes]:
        """No `[DONE]`: `response.completed` is the end."""
        text = "".join(self._texts)
        made = self.draft.finished(text, self._reason)
        self.store.keep(self.draft, made)
        (message,) = made.output
        name = "response.completed" if made.status == "completed" else "response.incomplete"
        return [
            self._event("response.output_text.done", **self._where(), text=text),
            self._event("response.content_part.done", **self._where(), part=message.content[0]),
            self._event("response.output_item.done", output_index=0, item=message),
            self._event(name, response=made),
        ]

    def error(self, message: str) -> None:
        """The line is cut."""

    def _opening(self) -> list[bytes]:
        begun = self.draft.begun()
        item = OutputMessage(self.draft.message_id, "in_progress", ())
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", **self._where(), part=OutputText("")),
        ]

    def _where(self) -> dict[str, object]:
        return {"item_id": self.draft.message_id, "output_index": 0, "content_index": 0}

    def _event(self, name: str, **fields: object) -> bytes:
        body = msgspec.json.encode({"type": name, "sequence_number": self._number, **fields})
        self._number += 1
        return f"event: {name}\n".encode() + b"data: " + body + b"\n\n"
