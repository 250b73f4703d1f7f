"""vLLM's `/inference/v1/generate`: token ids in, token ids out."""

from typing import Any
from uuid import uuid4

import msgspec

from loadtest.engine.dialect import GatheredResponse, Reply, Request, Response, StreamResponse
from loadtest.engine.sampling import Completion, Output
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_completions import DEFAULT_MAX_TOKENS, prompts_of
from loadtest.engine.vllm_request import (
    SamplingFields,
    check_sampling,
    decode_body,
    output_limit,
    sampling_params,
)
from loadtest.engine.vllm_wire import DONE, error_events, event


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    token_ids: list[int]
    sampling_params: SamplingFields = SamplingFields()
    request_id: str | None = None
    model: str | None = None
    stream: bool | None = False
    cache_salt: str | None = None
    priority: int = 0


class GenerateEndpoint:
    """Whole answers and streams of token ids."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def handle(self, request: Request) -> Reply:
        wanted = decode_body(request.body, request.headers.get("content-type"), GenerateRequest)
        base = self._base
        lora = base.lora_of(wanted.model)
        fields = msgspec.structs.replace(wanted.sampling_params, cache_salt=wanted.cache_salt)
        check_sampling(fields)
        prompt = prompts_of([*wanted.token_ids])[0]
        limit = output_limit(fields.max_tokens, len(prompt), base.options.max_model_len, DEFAULT_MAX_TOKENS)
        generations = tuple(
            base.core.submit(
                prompt,
                sampling_params(
                    fields,
                    max_tokens=limit,
                    logprobs=None,
                    lora=lora,
                    priority=base.priority(request, wanted.priority),
                    choice=choice,
                ),
            )
            for choice in range(fields.n or 1)
        )
        own_id = request.headers.get("x-request-id") or wanted.request_id or uuid4().hex
        base.remember(own_id, generations)
        if wanted.stream:
            return StreamResponse(generations, GenerateEncoder(own_id))

        def render(completions: tuple[Completion, ...]) -> Response:
            choices = [
                _choice(index, completion.token_ids, completion.finish_reason)
                for index, completion in enumerate(completions)
            ]
            return Response.of_json({"request_id": own_id, "choices": choices})

        return GatheredResponse(generations, render)


def _choice(index: int, token_ids: tuple[int, ...], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "logprobs": None, "finish_reason": finish_reason, "token_ids": token_ids}


class GenerateEncoder:
    """One event per output, then `[DONE]`."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def output(self, choice: int, output: Output) -> list[bytes]:
        choices = [_choice(choice, output.token_ids, output.finish_reason)]
        return [event({"request_id": self._request_id, "choices": choices})]

    def end(self) -> list[bytes]:
        return [DONE]

    def error(self, message: str) -> tuple[bytes, ...]:
        return error_events(message)
