"""vLLM's `/v1/chat/completions`."""

from collections.abc import Sequence
from typing import Any

import msgspec

from loadtest.engine.chat_template import content_text, render_chat
from loadtest.engine.core import Generation
from loadtest.engine.dialect import GatheredResponse, Reply, Request, Response, StreamResponse
from loadtest.engine.guided import guided_text, schema_of, tool_arguments
from loadtest.engine.sampling import Completion, Output
from loadtest.engine.tokens import encode
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_request import ChatRequest, check_chat, decode_body, output_limit, sampling_params
from loadtest.engine.vllm_wire import (
    DONE,
    ChatChoice,
    ChatChunks,
    Ending,
    Identity,
    chat_answer,
    chat_logprobs,
    content_delta,
    error_events,
    full_usage,
    usage,
)


class ChatEndpoint:
    """Whole answers and streams of chat."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def handle(self, request: Request) -> Reply:
        chat = decode_body(request.body, request.headers.get("content-type"), ChatRequest)
        return self.answer(request, chat)

    def answer(self, request: Request, chat: ChatRequest) -> StreamResponse | GatheredResponse:
        """Submit and say how to answer; raises Refusal."""
        generations = self.submit(request, chat)
        identity = self._base.identity(request, "chatcmpl", chat.model, chat.request_id)
        self._base.remember(identity.id, generations)
        headers = self._base.answer_headers(request)
        if chat.stream:
            encoder = ChatEncoder(identity, chat, generations, self._base)
            return StreamResponse(generations, encoder, headers=headers)

        def render(completions: tuple[Completion, ...]) -> Response:
            value = self._whole(identity, chat, generations, completions)
            return Response.of_json(value, headers=(*headers, *self._base.load_headers(request)))

        return GatheredResponse(generations, render)

    def submit(self, request: Request, chat: ChatRequest) -> tuple[Generation, ...]:
        """Check, render, tokenise and queue all choices; raises Refusal."""
        base = self._base
        lora = base.lora_of(chat.model)
        check_chat(chat)
        base.check_rank(request)
        prompt = prompt_ids(chat)
        asked = chat.max_completion_tokens or chat.max_tokens
        limit = output_limit(asked, len(prompt), base.options.max_model_len, None)
        forced = forced_text(chat)
        params = [
            sampling_params(
                chat,
                max_tokens=limit,
                logprobs=chat.reported_logprobs,
                lora=lora,
                priority=base.priority(request, chat.priority),
                choice=choice,
                forced_ids=None if forced is None else tuple(encode(forced)),
            )
            for choice in range(chat.n or 1)
        ]
        return tuple(base.core.submit(prompt, one) for one in params)

    def _whole(
        self,
        identity: Identity,
        chat: ChatRequest,
        generations: Sequence[Generation],
        completions: Sequence[Completion],
    ) -> dict[str, Any]:
        base = self._base
        tool = chat.forced_tool
        choices = [
            _choice(identity, index, chat, tool, completion) for index, completion in enumerate(completions)
        ]
        first = generations[0]
        cached = first.cached_tokens if base.flags.enable_prompt_tokens_details else None
        produced = sum(generation.output_tokens for generation in generations)
        value = chat_answer(
            identity,
            choices,
            full_usage(first.prompt_tokens, produced, cached or None),
            first.prompt_ids if chat.return_token_ids else None,
        )
        if base.flags.enable_per_request_metrics:
            value["metrics"] = {"queue_time_ms": (first.queue_s or 0.0) * 1e3}
        return value


def prompt_ids(chat: ChatRequest) -> list[int]:
    """The token ids of a chat request's rendered prompt."""
    text = render_chat(
        chat.messages,
        chat.tools if chat.tool_choice != "none" else None,
        add_generation_prompt=chat.add_generation_prompt,
        continue_final_message=chat.continue_final_message,
    )
    return encode(text)


def forced_text(chat: ChatRequest) -> str | None:
    """What guided decoding makes of the output: a call's arguments, a document; None if it is free."""
    if chat.forced_tool is not None:
        return tool_arguments(chat.forced_tool)
    return guided_text(schema_of(chat.response_format, chat.structured_outputs))


def _choice(
    identity: Identity, index: int, chat: ChatRequest, tool: Any, completion: Completion
) -> ChatChoice:
    ids = bool(chat.return_token_ids)
    if tool is None:
        text = completion.text
        if chat.echo:
            text = content_text(chat.messages[-1].get("content")) + text
        return ChatChoice(completion, completion.finish_reason, text, show_token_ids=ids)
    call = {
        "id": call_id(identity, index),
        "type": "function",
        "function": {"name": tool.get("name"), "arguments": completion.text},
    }
    return ChatChoice(completion, tool_finish(chat, completion.finish_reason), "", (call,), ids)


def call_id(identity: Identity, choice: int) -> str:
    """The id of a choice's tool call."""
    return f"chatcmpl-tool-{identity.id.partition('-')[2]}-{choice}"


def tool_finish(chat: ChatRequest, reason: str) -> str:
    """`tool_calls` where a call was required, but the plain reason for a function asked for by name."""
    return "tool_calls" if reason == "stop" and chat.tool_choice == "required" else reason


class ChatEncoder:
    """The events of one chat stream."""

    def __init__(
        self, identity: Identity, chat: ChatRequest, generations: Sequence[Generation], base: VllmBase
    ) -> None:
        forced = base.flags.enable_force_include_usage
        self._chunks = ChatChunks(identity)
        self._identity = identity
        self._chat = chat
        self._generations = generations
        self._details = base.flags.enable_prompt_tokens_details
        self._usage = chat.wants_usage or forced
        self._continuous = chat.wants_continuous_usage or forced
        self._ids = bool(chat.return_token_ids)
        self._tool = chat.forced_tool
        self._begun = False
        self._called: set[int] = set()

    def output(self, choice: int, output: Output) -> list[bytes]:
        events = [] if self._begun else self._begin()
        ending = None
        if output.finish_reason is not None:
            reason = (
                output.finish_reason if self._tool is None else tool_finish(self._chat, output.finish_reason)
            )
            ending = Ending(reason, output.stop_reason, fingerprinted=not self._usage)
        logprobs = output.logprobs
        events.append(
            self._chunks.delta(
                choice,
                content_delta(output.text) if self._tool is None else self._call_delta(choice, output.text),
                token_ids=output.token_ids if self._ids else None,
                logprobs=b"null" if logprobs is None else msgspec.json.encode(chat_logprobs(logprobs)),
                ending=ending,
                usage_now=self._usage_now((choice,)),
            )
        )
        return events

    def _begin(self) -> list[bytes]:
        """The role chunks of all choices come with the first output of any."""
        self._begun = True
        ids = self._generations[0].prompt_ids if self._ids else None
        choices = range(len(self._generations))
        usage_now = self._usage_now(()) if self._continuous else None
        events = [self._chunks.role(choice, ids, usage_now) for choice in choices]
        if self._chat.echo:
            text = content_text(self._chat.messages[-1].get("content"))
            events += [self._chunks.delta(choice, content_delta(text)) for choice in choices]
        return events

    def _call_delta(self, choice: int, text: str) -> bytes:
        function: dict[str, Any] = {"arguments": text}
        call: dict[str, Any] = {"index": 0, "function": function}
        if choice not in self._called and self._tool is not None:
            self._called.add(choice)
            function = {"name": self._tool.get("name"), "arguments": text}
            call = {
                "id": call_id(self._identity, choice),
                "type": "function",
                "index": 0,
                "function": function,
            }
        return msgspec.json.encode({"tool_calls": [call]})

    def _usage_now(self, choices: Sequence[int]) -> dict[str, Any] | None:
        if not self._continuous:
            return None
        produced = sum(self._generations[choice].output_tokens for choice in choices)
        return usage(self._generations[0].prompt_tokens, produced)

    def end(self) -> list[bytes]:
        if not self._usage:
            return [DONE]
        first = self._generations[0]
        produced = sum(generation.output_tokens for generation in self._generations)
        cached = first.cached_tokens if self._details else 0
        return [self._chunks.usage(usage(first.prompt_tokens, produced, cached or None)), DONE]

    def error(self, message: str) -> tuple[bytes, ...]:
        return error_events(message)
