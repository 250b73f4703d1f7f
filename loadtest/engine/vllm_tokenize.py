"""vLLM's tokenizer endpoints, and the rendering of requests to token ids."""

from typing import Any
from uuid import uuid4

import msgspec

from loadtest.engine.dialect import Reply, Request, Response
from loadtest.engine.tokens import check_ids, decode, encode, token_text
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_chat import prompt_ids
from loadtest.engine.vllm_completions import prompts_of
from loadtest.engine.vllm_errors import bad_request
from loadtest.engine.vllm_request import ChatRequest, CompletionRequest, check_chat, decode_body


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
        wanted = decode_body(request.body, request.headers.get("content-type"), TokenizeRequest)
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
        check_chat(chat)
        return prompt_ids(chat)

    async def detokenize(self, request: Request) -> Reply:
        wanted = decode_body(request.body, request.headers.get("content-type"), DetokenizeRequest)
        self._base.lora_of(wanted.model)
        try:
            check_ids(wanted.tokens)
        except ValueError as error:
            raise bad_request(str(error), "tokens") from error
        return Response.of_json({"prompt": decode(wanted.tokens, specials=True)})

    async def render_chat(self, request: Request) -> Reply:
        wanted = decode_body(request.body, request.headers.get("content-type"), ChatRequest)
        self._base.lora_of(wanted.model)
        check_chat(wanted)
        return Response.of_json(_rendered(wanted.request_id, prompt_ids(wanted)))

    async def render_completion(self, request: Request) -> Reply:
        wanted = decode_body(request.body, request.headers.get("content-type"), CompletionRequest)
        self._base.lora_of(wanted.model)
        prompts = prompts_of(wanted.prompt)
        return Response.of_json([_rendered(wanted.request_id, ids) for ids in prompts])


def _rendered(request_id: str | None, ids: list[int]) -> dict[str, Any]:
    return {"request_id": request_id or uuid4().hex, "token_ids": ids}
