"""vLLM's `/v1/completions`: text and token-id prompts, one or many."""

from collections.abc import Sequence
from typing import Any

from loadtest.engine.core import Generation
from loadtest.engine.dialect import GatheredResponse, Reply, Request, Response, StreamResponse
from loadtest.engine.guided import guided_text, schema_of
from loadtest.engine.sampling import Completion, Output, SamplingParams
from loadtest.engine.tokens import check_ids, decode, encode
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_errors import bad_request
from loadtest.engine.vllm_request import (
    CompletionRequest,
    check_sampling,
    decode_body,
    output_limit,
    sampling_params,
)
from loadtest.engine.vllm_wire import (
    DONE,
    CompletionChunks,
    Ending,
    Identity,
    completion_logprobs,
    error_events,
    full_usage,
    usage,
)

DEFAULT_MAX_TOKENS = 16


class CompletionsEndpoint:
    """Whole answers and streams of text completions."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def handle(self, request: Request) -> Reply:
        wanted = decode_body(request.body, request.headers.get("content-type"), CompletionRequest)
        base = self._base
        lora = base.lora_of(wanted.model)
        check_sampling(wanted)
        base.check_rank(request)
        if wanted.suffix:
            raise bad_request("suffix is not currently supported", "suffix")
        prompts = prompts_of(wanted.prompt)
        generations = tuple(
            base.core.submit(prompt, params)
            for prompt in prompts
            for params in self._params(request, wanted, len(prompt), lora)
        )
        identity = base.identity(request, "cmpl", wanted.model, wanted.request_id)
        base.remember(identity.id, generations)
        headers = base.answer_headers(request)
        if wanted.stream:
            return StreamResponse(
                generations, CompletionEncoder(identity, wanted, generations, base), headers=headers
            )

        def render(completions: tuple[Completion, ...]) -> Response:
            value = _whole(identity, wanted, generations, completions, base)
            return Response.of_json(value, headers=(*headers, *base.load_headers(request)))

        return GatheredResponse(generations, render)

    def _params(
        self, request: Request, wanted: CompletionRequest, prompt_tokens: int, lora: str | None
    ) -> list[SamplingParams]:
        base = self._base
        limit = output_limit(wanted.max_tokens, prompt_tokens, base.options.max_model_len, DEFAULT_MAX_TOKENS)
        forced = guided_text(schema_of(wanted.response_format, wanted.structured_outputs))
        return [
            sampling_params(
                wanted,
                max_tokens=limit,
                logprobs=wanted.logprobs,
                lora=lora,
                priority=base.priority(request, wanted.priority),
                choice=choice,
                forced_ids=None if forced is None else tuple(encode(forced)),
            )
            for choice in range(wanted.n or 1)
        ]


def prompts_of(prompt: str | list[str | int | list[int]] | None) -> list[list[int]]:
    """Token ids of every prompt; raises Refusal for none, an empty one, a mixed list, or impossible ids."""
    if isinstance(prompt, str):
        ids = [encode(prompt)]
    elif prompt and isinstance(prompt[0], int):
        ids = [[token for token in prompt if isinstance(token, int)]]
        if len(ids[0]) != len(prompt):
            raise bad_request("prompt must be a list of one kind", "prompt")
    else:
        ids = [
            encode(one) if isinstance(one, str) else one for one in prompt or () if not isinstance(one, int)
        ]
    if not ids or not all(ids):
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    try:
        for one in ids:
            check_ids(one)
    except ValueError as error:
        raise bad_request(str(error), "prompt") from error
    return ids


def _whole(
    identity: Identity,
    wanted: CompletionRequest,
    generations: Sequence[Generation],
    completions: Sequence[Completion],
    base: VllmBase,
) -> dict[str, Any]:
    copies = wanted.n or 1
    prompts = generations[::copies]
    cached = sum(generation.cached_tokens for generation in prompts)
    return {
        "id": identity.id,
        "object": "text_completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [
            _choice(index, wanted, generation, completion)
            for index, (generation, completion) in enumerate(zip(generations, completions, strict=True))
        ],
        "service_tier": None,
        "system_fingerprint": identity.fingerprint,
        "usage": full_usage(
            sum(generation.prompt_tokens for generation in prompts),
            sum(generation.output_tokens for generation in generations),
            cached or None if base.flags.enable_prompt_tokens_details else None,
        ),
        "kv_transfer_params": None,
    }


def _choice(
    index: int, wanted: CompletionRequest, generation: Generation, completion: Completion
) -> dict[str, Any]:
    echoed = decode(generation.prompt_ids, specials=True) if wanted.echo else ""
    ids = bool(wanted.return_token_ids)
    return {
        "index": index,
        "text": echoed + completion.text,
        "logprobs": completion_logprobs(completion.logprobs, len(echoed)),
        "finish_reason": completion.finish_reason,
        "stop_reason": completion.stop_reason,
        "token_ids": completion.token_ids if ids else None,
        "prompt_logprobs": None,
        "prompt_token_ids": generation.prompt_ids if ids else None,
    }


class CompletionEncoder:
    """The events of one completions stream."""

    def __init__(
        self,
        identity: Identity,
        wanted: CompletionRequest,
        generations: Sequence[Generation],
        base: VllmBase,
    ) -> None:
        forced = base.flags.enable_force_include_usage
        self._chunks = CompletionChunks(identity)
        self._wanted = wanted
        self._generations = generations
        self._details = base.flags.enable_prompt_tokens_details
        self._usage = wanted.wants_usage or forced
        self._continuous = wanted.wants_continuous_usage or forced
        self._ids = bool(wanted.return_token_ids)
        self._offsets = [-1] * len(generations)
        """Characters sent by choice; -1 before its first event."""

    def output(self, choice: int, output: Output) -> list[bytes]:
        generation = self._generations[choice]
        first = self._offsets[choice] < 0
        echoed = decode(generation.prompt_ids, specials=True) if first and self._wanted.echo else ""
        offset = max(0, self._offsets[choice]) + len(echoed)
        self._offsets[choice] = offset + len(output.text)
        ending = None
        if output.finish_reason is not None:
            ending = Ending(output.finish_reason, output.stop_reason, fingerprinted=not self._usage)
        usage_now = usage(generation.prompt_tokens, generation.output_tokens) if self._continuous else None
        return [
            self._chunks.text(
                choice,
                echoed + output.text,
                prompt_token_ids=generation.prompt_ids if first and self._ids else None,
                token_ids=output.token_ids if self._ids else None,
                logprobs=completion_logprobs(output.logprobs, offset),
                ending=ending,
                usage_now=usage_now,
            )
        ]

    def end(self) -> list[bytes]:
        if not self._usage:
            return [DONE]
        prompts = self._generations[:: self._wanted.n or 1]
        cached = sum(generation.cached_tokens for generation in prompts) if self._details else 0
        value = usage(
            sum(generation.prompt_tokens for generation in prompts),
            sum(generation.output_tokens for generation in self._generations),
            cached or None,
        )
        return [self._chunks.usage(value), DONE]

    def error(self, message: str) -> tuple[bytes, ...]:
        return error_events(message)
