"""trtllm-serve's generation endpoints: requests to prompts and sampling, generations to answers or streams.

Whatever goes wrong in here, a prompt that is too long included, is a flat 400.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import TypeVar

import msgspec

from loadtest.engine import trtllm_wire as wire
from loadtest.engine.chat_template import content_text, render_chat
from loadtest.engine.core import EngineCore, EngineDead, EngineOptions, Generation
from loadtest.engine.dialect import (
    GatheredResponse,
    Headers,
    Refusal,
    Reply,
    Request,
    Response,
    StreamResponse,
)
from loadtest.engine.guided import guided_text, schema_of, tool_arguments
from loadtest.engine.pending import Pending
from loadtest.engine.sampling import Completion, SamplingParams
from loadtest.engine.tokens import check_ids, decode, encode
from loadtest.engine.trtllm_answer import chat_answer, text_answer
from loadtest.engine.trtllm_request_wire import (
    ChatRequest,
    Common,
    CompletionRequest,
    Invalid,
    NamedTool,
    Tool,
)
from loadtest.engine.trtllm_request_wire import decode as decode_request
from loadtest.engine.trtllm_stream import ChatStream, Identity, TextStream, Wanted
from loadtest.engine.trtllm_telemetry import Snapshot

Body = TypeVar("Body", ChatRequest, CompletionRequest)
Refused = Callable[[int, str], Response]


class Inference:
    """The two OpenAI endpoints over one engine."""

    def __init__(
        self,
        core: EngineCore,
        options: EngineOptions,
        snapshot: Snapshot,
        *,
        reports_metrics: bool,
        auto_calls: bool,
    ) -> None:
        """`reports_metrics`: whether the server heeds the metrics header; `auto_calls`: whether a model that
        may call a tool does so."""
        self._core = core
        self._options = options
        self._snapshot = snapshot
        self._reports_metrics = reports_metrics
        self._auto_calls = auto_calls
        self._numbers = count(1)
        self.pending = Pending()

    async def chat(self, request: Request) -> Reply:
        """`POST /v1/chat/completions`."""
        asked = self._decoded(request, ChatRequest)
        tool = self._tool(asked)
        prompt = self._chat_prompt(asked)
        alternatives = (asked.top_logprobs or 1) if asked.logprobs else None
        params = self._sampling(asked, prompt, asked.longest, alternatives, _forced(asked, tool))
        generations = self._submitted(prompt, params, asked.n)
        wanted = Wanted(
            model=asked.model,
            usage=asked.include_usage,
            continuous_usage=asked.continuous_usage,
            logprobs=bool(asked.logprobs),
            top_logprobs=asked.top_logprobs or 0,
            tool=tool.function.name if tool else None,
            tool_named=isinstance(asked.tool_choice, NamedTool),
            echo=_echo(asked),
        )
        if asked.stream:
            trailer = self._trailer(request, generations)
            return StreamResponse(
                generations,
                ChatStream(generations, wanted, self._identity("chatcmpl"), trailer),
                wire.EVENT_STREAM,
            )
        return self._gathered(generations, request, lambda done: chat_answer(generations, done, wanted))

    async def completions(self, request: Request) -> Reply:
        """`POST /v1/completions`: text or token ids, one prompt or several."""
        asked = self._decoded(request, CompletionRequest)
        prompts = [self._prompt(asked, one) for one in asked.prompts]
        generations: tuple[Generation, ...] = ()
        for prompt in prompts:
            params = self._sampling(asked, prompt, asked.max_tokens, asked.logprobs or None, None)
            generations += self._submitted(prompt, params, asked.n)
        wanted = Wanted(
            model=asked.model,
            usage=asked.include_usage,
            continuous_usage=asked.continuous_usage,
            logprobs=bool(asked.logprobs),
            detokenize=asked.detokenize,
        )
        echoes = tuple(decode(prompt) for prompt in prompts) if asked.echo else ()
        if asked.stream:
            identities = tuple(self._identity("cmpl") for _ in prompts)
            trailer = self._trailer(request, generations)
            stream = TextStream(generations, asked.n, wanted, identities, echoes, trailer)
            return StreamResponse(generations, stream, wire.EVENT_STREAM)
        return self._gathered(
            generations, request, lambda done: text_answer(generations, done, wanted, asked.n, echoes)
        )

    def probe(self) -> Generation:
        """One token of output, to see whether the engine works. Raises EngineDead."""
        prompt = encode(render_chat([{"role": "user", "content": "hi"}]))
        return self._core.submit(prompt, SamplingParams(max_tokens=1, temperature=0.0))

    # ---- requests ----

    def _decoded(self, request: Request, kind: type[Body]) -> Body:
        try:
            return decode_request(request.body, kind, knows_new_fields=self._snapshot == "new")
        except Invalid as invalid:
            if self._snapshot == "old":
                raise Refusal(bad_request(str(invalid))) from invalid
            raise Refusal(Response.of_json(wire.StringError(str(invalid)), 400)) from invalid

    def _tool(self, asked: ChatRequest) -> Tool | None:
        """The tool that is called. The default choice is `none`, unlike OpenAI's."""
        if asked.tool_choice == "required":
            raise Refusal(bad_request('tool_choice="required" is not supported for this model.'))
        tools = asked.tools or ()
        if isinstance(asked.tool_choice, NamedTool):
            name = asked.tool_choice.function.name
            return next((tool for tool in tools if tool.function.name == name), None)
        answered = bool(asked.messages) and asked.messages[-1].get("role") == "tool"
        may = asked.tool_choice == "auto" and self._auto_calls and not answered
        return tools[0] if tools and may else None

    def _chat_prompt(self, asked: ChatRequest) -> list[int]:
        if asked.chat_template is not None:
            raise Refusal(bad_request(wire.NO_CHAT_TEMPLATE))
        if asked.prompt_token_ids is not None:
            return self._prompt(asked, asked.prompt_token_ids)
        tools = None if asked.tools is None else [msgspec.to_builtins(tool) for tool in asked.tools]
        text = render_chat(asked.messages, tools, add_generation_prompt=asked.add_generation_prompt)
        return self._prompt(asked, text)

    def _prompt(self, asked: Common, prompt: str | Sequence[int]) -> list[int]:
        try:
            ids = encode(prompt) if isinstance(prompt, str) else list(prompt)
            check_ids(ids)
        except ValueError as wrong:
            raise Refusal(bad_request(str(wrong))) from wrong
        return ids if asked.truncate_prompt_tokens is None else ids[-asked.truncate_prompt_tokens :]

    def _sampling(
        self,
        asked: Common,
        prompt: Sequence[int],
        longest: int | None,
        logprobs: int | None,
        forced: str | None,
    ) -> SamplingParams:
        limit = self._options.max_model_len
        max_tokens = limit - len(prompt) if longest is None else longest
        if max_tokens < 1 or len(prompt) + max_tokens > limit:
            raise Refusal(bad_request(wire.too_long(len(prompt), max_tokens, limit)))
        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=asked.min_tokens,
            temperature=1.0 if asked.temperature is None else asked.temperature,
            seed=asked.seed,
            stop=asked.stops,
            include_stop=asked.include_stop_str_in_output,
            stop_token_ids=asked.stop_token_ids or (),
            ignore_eos=asked.ignore_eos,
            logprobs=logprobs,
            priority=0 if asked.priority is None else -round(asked.priority * 1000),
            forced_ids=None if forced is None else tuple(encode(forced)),
            lora=asked.lora_request.lora_name if asked.lora_request else None,
            cache_salt=asked.cache_salt if isinstance(asked, ChatRequest) else None,
        )

    def _submitted(
        self, prompt: Sequence[int], params: SamplingParams, choices: int
    ) -> tuple[Generation, ...]:
        if choices < 1:
            raise Refusal(bad_request("n must be at least 1"))
        try:
            return tuple(
                self._core.submit(prompt, replace(params, choice=choice)) for choice in range(choices)
            )
        except (EngineDead, ValueError) as failure:
            raise Refusal(bad_request(str(failure))) from failure

    # ---- answers ----

    def _gathered(
        self,
        generations: tuple[Generation, ...],
        request: Request,
        answer: Callable[[tuple[Completion, ...]], msgspec.Struct],
    ) -> GatheredResponse:
        self.pending.add(generations)

        def render(completions: tuple[Completion, ...]) -> Response:
            headers = self._timing_headers(generations) if self._wants_metrics(request) else ()
            return Response.of_json(answer(completions), headers=headers)

        return GatheredResponse(generations, render)

    def _identity(self, prefix: str) -> Identity:
        return Identity(prefix, next(self._numbers), int(time.time()), renewed=self._snapshot == "old")

    def _wants_metrics(self, request: Request) -> bool:
        return self._reports_metrics and request.headers.get("x-trtllm-return-metrics") == "1"

    def _trailer(self, request: Request, generations: Sequence[Generation]) -> Callable[[], bytes] | None:
        if not self._wants_metrics(request):
            return None
        return lambda: wire.perf_trailer(*_timing(generations[0]))

    @staticmethod
    def _timing_headers(generations: Sequence[Generation]) -> Headers:
        timing, start_end = _timing(generations[0])
        return (("server-timing", timing), ("x-trtllm-start-end-time", start_end))


def bad_request(message: str) -> Response:
    """What every mistake gets: 400 and a flat object."""
    return Response.of_json(wire.FlatError(message=message), 400)


def _timing(one: Generation) -> tuple[str, str]:
    now = time.monotonic()
    first = (one.first_token_s or now) - one.arrived_s
    timing = wire.server_timing(one.queue_s or 0.0, first, now - one.arrived_s)
    return timing, wire.start_end_time(one.arrived_s, now)


def _forced(asked: ChatRequest, tool: Tool | None) -> str | None:
    """The text that guided decoding enforces: a tool's arguments, or a document of the wanted schema."""
    if tool is not None:
        return tool_arguments(msgspec.to_builtins(tool.function))
    wanted = asked.response_format
    if wanted is None:
        return None
    for kind, key in (("json", "schema"), ("json_schema", "json_schema")):
        if wanted.type == kind and getattr(wanted, key) is None:
            raise Refusal(bad_request(wire.no_schema(kind, key)))
    if wanted.type == "json":
        return guided_text(wanted.schema)
    return guided_text(schema_of(msgspec.to_builtins(wanted)))


def _echo(asked: ChatRequest) -> str:
    """The open assistant message that is put before the answer, if that was asked for."""
    last = asked.messages[-1] if asked.messages else {}
    return content_text(last.get("content")) if asked.echo and last.get("role") == "assistant" else ""
