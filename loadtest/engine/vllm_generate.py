"""vLLM's `/inference/v1/generate`: token ids in, token ids out."""

import time
from typing import Any

import msgspec

from loadtest.engine.dialect import GatheredResponse, Reply, Request, Response, StreamResponse
from loadtest.engine.sampling import Completion, Output
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_completions import DEFAULT_MAX_TOKENS, prompts_of
from loadtest.engine.vllm_request import SamplingFields, StreamOptions, check_sampling, sampling_params
from loadtest.engine.vllm_usage import UsageReport
from loadtest.engine.vllm_wire import DONE, error_events, event


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    token_ids: list[int]
    sampling_params: SamplingFields = SamplingFields()
    request_id: str | None = None
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    cache_salt: str | None = None
    priority: int = 0


class GenerateEndpoint:
    """Whole answers and streams of token ids."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def handle(self, request: Request) -> Reply:
        wanted = decode_body(request, GenerateRequest)
        base = self._base
        lora = base.lora_of(wanted.model)
        fields = msgspec.structs.replace(wanted.sampling_params, cache_salt=wanted.cache_salt)
        check_sampling(fields)
        prompt = prompts_of([*wanted.token_ids])[0]
        params = [
            sampling_params(
                fields,
                max_tokens=base.limit(fields.max_tokens, len(prompt), DEFAULT_MAX_TOKENS),
                logprobs=None,
                lora=lora,
                priority=base.priority(request, wanted.priority),
                choice=choice,
            )
            for choice in range(fields.n or 1)
        ]
        own_id = f"generate-tokens-{base.own_id(request, wanted.request_id)}"
        generations = base.submit(own_id, [prompt], [params])
        usage = base.usage(generations[:1], generations)
        if wanted.stream:
            options = wanted.stream_options
            shown = usage if options is not None and options.include_usage else None
            return StreamResponse(generations, GenerateEncoder(own_id, shown))

        def render(completions: tuple[Completion, ...]) -> Response:
            return Response.of_json(_whole(own_id, wanted.model or base.options.model, usage, completions))

        return GatheredResponse(generations, render)


def _whole(
    own_id: str, model: str, usage: UsageReport, completions: tuple[Completion, ...]
) -> dict[str, Any]:
    return {
        "request_id": own_id,
        "model": model,
        "created": int(time.time()),
        "usage": usage.whole(),
        "prompt_logprobs": None,
        "prompt_token_id_logprobs": None,
        "prompt_token_ids": None,
        "mm_placeholders": None,
        "metrics": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "output_mode": "tokens",
        "choices": [
            _choice(index, one.token_ids, one.finish_reason, one.stop_reason, len(one.token_ids))
            for index, one in enumerate(completions)
        ],
    }


def _choice(
    index: int,
    token_ids: tuple[int, ...],
    finish_reason: str | None,
    stop_reason: str | int | None,
    produced: int,
) -> dict[str, Any]:
    """`produced` counts all its tokens; which weights made them is told at the end."""
    weights = [{"version": "default", "start": 0, "end": produced}]
    return {
        "index": index,
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
        "token_ids": token_ids,
        "routed_experts": None,
        "sampling_mask": None,
        "weight_versions": weights if finish_reason is not None else None,
        "logprobs": None,
    }


class GenerateEncoder:
    """One event per output, one with the usage if it was asked for, then `[DONE]`."""

    def __init__(self, request_id: str, usage: UsageReport | None) -> None:
        self._request_id = request_id
        self._usage = usage
        self._produced: dict[int, int] = {}

    def output(self, choice: int, output: Output) -> list[bytes]:
        produced = self._produced.get(choice, 0) + len(output.token_ids)
        self._produced[choice] = produced
        return [
            self._event(
                None,
                [_choice(choice, output.token_ids, output.finish_reason, output.stop_reason, produced)],
            )
        ]

    def _event(self, usage: dict[str, Any] | None, choices: list[dict[str, Any]]) -> bytes:
        return event(
            {"request_id": self._request_id, "usage": usage, "output_mode": "tokens", "choices": choices}
        )

    def end(self) -> list[bytes]:
        return [DONE] if self._usage is None else [self._event(self._usage.last_chunk(), []), DONE]

    def error(self, message: str) -> tuple[bytes, ...]:
        return error_events(message)
