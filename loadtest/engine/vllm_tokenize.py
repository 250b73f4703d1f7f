"""vLLM's tokenizer endpoints, and the rendering of requests to token ids."""

from typing import Any

import msgspec

from loadtest.engine.dialect import Reply, Request, Response
from loadtest.engine.tokens import check_ids, decode, encode, token_text
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_chat import prompt_text
from loadtest.engine.vllm_completions import DEFAULT_MAX_TOKENS, prompts_of
from loadtest.engine.vllm_errors import VllmError, bad_request
from loadtest.engine.vllm_request import ChatRequest, CompletionRequest, SamplingFields, check_chat


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    tools: list[dict[str, Any]] | None = None
    return_token_strs: bool | None = False


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    tokens: list[int]


class TokenizeEndpoint:
    """`/tokenize`, `/detokenize`, `/v1/chat/completions/render`, `/v1/completions/render`."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base

    async def tokenize(self, request: Request) -> Reply:
        wanted = decode_body(request, TokenizeRequest)
        self._base.lora_of(wanted.model)
        ids = self._ids(wanted)
        return Response.of_json(
            {
                "count": len(ids),
                "max_model_len": self._base.options.max_model_len,
                "tokens": ids,
                "token_strs": [token_text(token) for token in ids] if wanted.return_token_strs else None,
            }
        )

    def _ids(self, wanted: TokenizeRequest) -> list[int]:
        if wanted.messages is None:
            return encode(wanted.prompt or "")
        chat = ChatRequest(
            messages=wanted.messages,
            tools=wanted.tools,
            add_generation_prompt=wanted.add_generation_prompt,
            continue_final_message=wanted.continue_final_message,
        )
        check_chat(chat, self._base.flags)
        return encode(prompt_text(chat))

    async def detokenize(self, request: Request) -> Reply:
        wanted = decode_body(request, DetokenizeRequest)
        self._base.lora_of(wanted.model)
        try:
            check_ids(wanted.tokens)
        except ValueError as error:
            raise bad_request(str(error)) from error
        return Response.of_json({"prompt": decode(wanted.tokens, specials=True)})

    async def render_chat(self, request: Request) -> Reply:
        self._check_scale_out()
        wanted = decode_body(request, ChatRequest)
        self._base.lora_of(wanted.model)
        check_chat(wanted, self._base.flags)
        ids = encode(prompt_text(wanted))
        asked = wanted.max_tokens if wanted.max_completion_tokens is None else wanted.max_completion_tokens
        limit = self._base.limit(asked, len(ids), None)
        own_id = f"chatcmpl-{self._base.own_id(request, wanted.request_id)}"
        return Response.of_json(self._rendered(own_id, wanted, ids, limit))

    async def render_completion(self, request: Request) -> Reply:
        self._check_scale_out()
        wanted = decode_body(request, CompletionRequest)
        self._base.lora_of(wanted.model)
        own_id = f"cmpl-{self._base.own_id(request, wanted.request_id)}"
        prompts = prompts_of(wanted.prompt)
        limits = [self._base.limit(wanted.max_tokens, len(ids), DEFAULT_MAX_TOKENS) for ids in prompts]
        pairs = zip(prompts, limits, strict=True)
        return Response.of_json([self._rendered(own_id, wanted, ids, limit) for ids, limit in pairs])

    def _check_scale_out(self) -> None:
        if not self._base.flags.enable_scale_out:
            disabled = "Scale-out endpoints are disabled."
            hint = "Restart vllm serve with --enable-scale-out to enable them."
            raise VllmError(403, f"{disabled} {hint}")

    def _rendered(self, own_id: str, wanted: SamplingFields, ids: list[int], limit: int) -> dict[str, Any]:
        """The request that `/inference/v1/generate` would take for the same."""
        return {
            "request_id": own_id,
            "token_ids": ids,
            "token_offsets": None,
            "features": None,
            "content_parts": None,
            "sampling_params": _sampling(wanted, limit),
            "model": wanted.model or self._base.options.model,
            "reasoning_ended": None,
            "reasoning_parser_kwargs": None,
            "return_token_ids": wanted.return_token_ids,
            "output_mode": "tokens",
            "stream": bool(wanted.stream),
            "stream_options": wanted.stream_options,
            "cache_salt": wanted.cache_salt,
            "priority": wanted.priority,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
        }


def _sampling(wanted: SamplingFields, limit: int) -> dict[str, Any]:
    stop = [wanted.stop] if isinstance(wanted.stop, str) else wanted.stop or []
    return {
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "temperature": 1.0 if wanted.temperature is None else wanted.temperature,
        "top_p": 1.0 if wanted.top_p is None else wanted.top_p,
        "min_p": 0.0,
        "stop": stop,
        "stop_token_ids": wanted.stop_token_ids or [],
        "max_tokens": limit,
        "output_kind": 2,
        "skip_clone": True,
        "bad_words": [],
        "skip_reading_prefix_cache": wanted.prompt_logprobs is not None,
    }
