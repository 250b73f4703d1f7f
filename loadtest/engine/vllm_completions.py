"""vLLM's `/v1/completions`: text and token-id prompts, one or many."""

from collections.abc import Sequence

from loadtest.engine.core import Generation
from loadtest.engine.dialect import GatheredResponse, Reply, Request, Response, StreamResponse
from loadtest.engine.guided import guided_text, schema_of
from loadtest.engine.sampling import Completion, Output, SamplingParams
from loadtest.engine.tokens import check_ids, decode, encode
from loadtest.engine.vllm_answers import TextChoice, completion_answer
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_context import check_characters
from loadtest.engine.vllm_errors import VllmError, bad_request, bad_value
from loadtest.engine.vllm_request import CompletionRequest, check_sampling, sampling_params
from loadtest.engine.vllm_usage import UsageReport
from loadtest.engine.vllm_wire import (
    DONE,
    CompletionChunks,
    Ending,
    Identity,
    completion_logprobs,
    error_events,
)

DEFAULT_MAX_TOKENS = 16


class CompletionsEndpoint:
    """Whole answers and streams of text completions."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def handle(self, request: Request) -> Reply:
        wanted = decode_body(request, CompletionRequest)
        base = self._base
        lora = base.lora_of(wanted.model)
        check_sampling(wanted)
        base.check_rank(request)
        if wanted.suffix:
            raise bad_request("suffix is only supported for models with FIM completion rendering", "suffix")
        prompts = self.prompts(wanted)
        params = [self._params(request, wanted, len(prompt), lora) for prompt in prompts]
        identity = base.identity(request, "cmpl", wanted.model, wanted.request_id)
        generations = base.submit(identity.id, prompts, params)
        usage = base.usage(generations[:: wanted.n or 1], generations)
        if wanted.stream:
            forced = base.flags.enable_force_include_usage
            encoder = CompletionEncoder(identity, wanted, generations, usage, forced_usage=forced)
            return StreamResponse(generations, encoder)

        def render(completions: tuple[Completion, ...]) -> Response:
            choices = [
                _choice(wanted, generation, completion)
                for generation, completion in zip(generations, completions, strict=True)
            ]
            value = completion_answer(identity, choices, usage.whole(), recent=base.flags.recent)
            return Response.of_json(value, headers=base.load_headers(request))

        return GatheredResponse(generations, render)

    def prompts(self, wanted: CompletionRequest) -> list[list[int]]:
        """Token ids of every prompt; raises Refusal."""
        if self._base.flags.recent and isinstance(wanted.prompt, str):
            check_characters(wanted.prompt, self._base.options.max_model_len)
        return prompts_of(wanted.prompt)

    def _params(
        self, request: Request, wanted: CompletionRequest, prompt_tokens: int, lora: str | None
    ) -> list[SamplingParams]:
        base = self._base
        limit = base.limit(wanted.max_tokens, prompt_tokens, DEFAULT_MAX_TOKENS)
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
    if prompt == []:
        raise bad_request("You must pass at least one prompt")
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
        raise bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    for one in ids:
        _check_vocabulary(one)
    return ids


def _check_vocabulary(token_ids: Sequence[int]) -> None:
    try:
        check_ids(token_ids)
    except ValueError as error:
        raise VllmError(400, str(error)) from error


def _choice(wanted: CompletionRequest, generation: Generation, completion: Completion) -> TextChoice:
    prompt_ids = generation.prompt_ids
    return TextChoice(
        completion,
        prompt_ids,
        echoed=decode(prompt_ids, specials=True) if wanted.echo else "",
        show_token_ids=bool(wanted.return_token_ids),
        prompt_logprobs=wanted.prompt_logprobs,
    )


class CompletionEncoder:
    """The events of one completions stream."""

    def __init__(
        self,
        identity: Identity,
        wanted: CompletionRequest,
        generations: Sequence[Generation],
        usage: UsageReport,
        *,
        forced_usage: bool,
    ) -> None:
        self._chunks = CompletionChunks(identity)
        self._wanted = wanted
        self._generations = generations
        self._usage = usage
        self._wants_usage = wanted.wants_usage or forced_usage
        self._continuous = wanted.wants_continuous_usage or forced_usage
        self._offsets = [-1] * len(generations)
        """Characters sent by choice; -1 before its first event."""

    def output(self, choice: int, output: Output) -> list[bytes]:
        generation, wanted = self._generations[choice], self._wanted
        first = self._offsets[choice] < 0
        echoed = decode(generation.prompt_ids, specials=True) if first and wanted.echo else ""
        offset = max(0, self._offsets[choice]) + len(echoed)
        self._offsets[choice] = offset + len(output.text)
        ending = None
        if output.finish_reason is not None:
            ending = Ending(output.finish_reason, output.stop_reason, fingerprinted=not self._wants_usage)
        shows_prompt = first and (wanted.return_token_ids or wanted.echo)
        return [
            self._chunks.text(
                choice,
                echoed + output.text,
                prompt_token_ids=generation.prompt_ids if shows_prompt else None,
                token_ids=output.token_ids if wanted.return_token_ids else None,
                logprobs=completion_logprobs(output.logprobs, offset),
                ending=ending,
                usage_now=self._usage.so_far(generation, (generation,)) if self._continuous else None,
            )
        ]

    def end(self) -> list[bytes]:
        return [self._chunks.usage(self._usage.last_chunk()), DONE] if self._wants_usage else [DONE]

    def error(self, message: str) -> tuple[bytes, ...]:
        return error_events(message)
