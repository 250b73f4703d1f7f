"""vLLM's `/v1/chat/completions`: from the request to generations, and to a whole answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.engine.chat_template import content_text, render_chat
from loadtest.engine.core import Generation
from loadtest.engine.dialect import GatheredResponse, Reply, Request, Response, StreamResponse
from loadtest.engine.guided import guided_text, schema_of
from loadtest.engine.sampling import Completion
from loadtest.engine.tokens import encode
from loadtest.engine.vllm_answers import ChatChoice, chat_answer
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_chat_stream import ChatEncoder
from loadtest.engine.vllm_context import check_characters
from loadtest.engine.vllm_request import ChatRequest, check_chat, sampling_params
from loadtest.engine.vllm_tools import ToolPlan, call_id
from loadtest.engine.vllm_usage import UsageReport
from loadtest.engine.vllm_wire import Identity


@dataclass(frozen=True, slots=True)
class ChatJob:
    """A chat request on its way: who it is, what it asked, what was queued for it."""

    identity: Identity
    chat: ChatRequest
    generations: tuple[Generation, ...]
    usage: UsageReport
    tool: ToolPlan | None = None


class ChatEndpoint:
    """Whole answers and streams of chat."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def handle(self, request: Request) -> Reply:
        chat = decode_body(request, ChatRequest)
        identity = self._base.identity(request, "chatcmpl", chat.model, chat.request_id)
        job = self.submit(request, chat, identity)
        if chat.stream:
            flags = self._base.flags
            encoder = ChatEncoder(
                identity,
                chat,
                job.generations,
                job.usage,
                job.tool,
                forced_usage=flags.enable_force_include_usage,
            )
            return StreamResponse(job.generations, encoder)

        def render(completions: tuple[Completion, ...]) -> Response:
            return Response.of_json(self._whole(job, completions), headers=self._base.load_headers(request))

        return GatheredResponse(job.generations, render)

    def submit(self, request: Request, chat: ChatRequest, identity: Identity) -> ChatJob:
        """Check, render, tokenise and queue all choices; raises Refusal."""
        base = self._base
        lora = base.lora_of(chat.model)
        check_chat(chat, base.flags)
        base.check_rank(request)
        text = prompt_text(chat)
        if base.flags.recent:
            check_characters(text, base.options.max_model_len)
        prompt = encode(text)
        name = "max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens"
        asked = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
        limit = base.limit(asked, len(prompt), None, name)
        tool = None if chat.forced_tool is None else ToolPlan.of(chat.forced_tool)
        params = [
            sampling_params(
                chat,
                max_tokens=limit,
                logprobs=chat.reported_logprobs,
                lora=lora,
                priority=base.priority(request, chat.priority),
                choice=choice,
                forced_ids=_forced_ids(chat, tool),
            )
            for choice in range(chat.n or 1)
        ]
        generations = base.submit(identity.id, [prompt], [params])
        usage = base.usage(generations[:1], generations, created=True)
        return ChatJob(identity, chat, generations, usage, tool)

    def _whole(self, job: ChatJob, completions: Sequence[Completion]) -> dict[str, Any]:
        chat, first = job.chat, job.generations[0]
        measured = {"queue_time_ms": (first.queue_s or 0.0) * 1e3}
        return chat_answer(
            job.identity,
            [_choice(job, index, completion) for index, completion in enumerate(completions)],
            job.usage.whole(),
            first.prompt_ids if chat.return_token_ids else None,
            prompt_text(chat) if chat.return_prompt_text else None,
            measured if self._base.flags.enable_per_request_metrics else None,
        )


def prompt_text(chat: ChatRequest) -> str:
    """A chat request's rendered prompt."""
    return render_chat(
        chat.messages,
        chat.tools if chat.tool_choice != "none" else None,
        add_generation_prompt=chat.add_generation_prompt,
        continue_final_message=chat.continue_final_message,
    )


def _forced_ids(chat: ChatRequest, tool: ToolPlan | None) -> tuple[int, ...] | None:
    """What guided decoding makes of the output: a call, a document; None if it is free."""
    if tool is not None:
        return tool.token_ids
    text = guided_text(schema_of(chat.response_format, chat.structured_outputs))
    return None if text is None else tuple(encode(text))


def _choice(job: ChatJob, index: int, completion: Completion) -> ChatChoice:
    ids = bool(job.chat.return_token_ids)
    if job.tool is None:
        echoed = content_text(job.chat.messages[-1].get("content")) if job.chat.echo else ""
        return ChatChoice(completion, completion.finish_reason, echoed + completion.text, (), ids)
    call = {
        "id": call_id(job.identity.id, index),
        "type": "function",
        "function": {"name": job.tool.name, "arguments": job.tool.arguments(completion.token_ids)},
    }
    return ChatChoice(completion, tool_finish(job.chat, completion.finish_reason), "", (call,), ids)


def tool_finish(chat: ChatRequest, reason: str) -> str:
    """`tool_calls` where a call was required, but the plain reason for a function asked for by name."""
    return "tool_calls" if reason == "stop" and chat.tool_choice == "required" else reason
