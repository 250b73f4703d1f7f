"""vLLM's generation requests: which fields it reads, what it refuses, and the sampling parameters they come
to.

Unknown fields are ignored. Values that do not fit together are `BadRequestError`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from loadtest.engine.sampling import SamplingParams
from loadtest.engine.vllm_errors import bad_request, bad_value
from loadtest.engine.vllm_options import VllmOptions

_PARSER_MISSING = {
    "auto": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    "required": 'tool_choice="required" requires --tool-call-parser to be set',
}


MAX_SEQUENCES = 16_384
"""`VLLM_MAX_N_SEQUENCES` of vLLM 0.32."""


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True):
    """What chat and completions have in common."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    stream_interval: int | None = None
    max_tokens: int | None = None
    n: int | None = 1
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    prompt_logprobs: int | None = None
    use_beam_search: bool = False
    echo: bool | None = False
    priority: int = 0
    cache_salt: str | None = None
    request_id: str | None = None
    return_token_ids: bool | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def wants_continuous_usage(self) -> bool:
        return (
            self.wants_usage
            and self.stream_options is not None
            and bool(self.stream_options.continuous_usage_stats)
        )


class ChatRequest(SamplingFields, frozen=True, kw_only=True):
    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_prompt_text: bool | None = None

    @property
    def reported_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def forced_tool(self) -> Mapping[str, Any] | None:
        """The function that must be called: the named one, or the first when some call is required."""
        if not self.tools or self.tool_choice in (None, "none", "auto"):
            return None
        functions = [tool.get("function") or {} for tool in self.tools]
        if isinstance(self.tool_choice, Mapping):
            wanted = (self.tool_choice.get("function") or {}).get("name")
            return next((function for function in functions if function.get("name") == wanted), None)
        return functions[0]


class CompletionRequest(SamplingFields, frozen=True, kw_only=True):
    prompt: str | list[str | int | list[int]] | None = None
    logprobs: int | None = None
    suffix: str | None = None


def check_sampling(fields: SamplingFields) -> None:
    """Raises Refusal for values and combinations that vLLM refuses on both endpoints."""
    if fields.stream_options is not None and not fields.stream:
        raise bad_value("Stream options can only be defined when `stream=True`.", "stream_options")
    if fields.temperature is not None and fields.temperature < 0:
        message = f"temperature must be non-negative, got {fields.temperature}."
        raise bad_value(message, "temperature", fields.temperature)
    if fields.top_p is not None and not 0 < fields.top_p <= 1:
        raise bad_value(f"top_p must be in (0, 1], got {fields.top_p}.", "top_p", fields.top_p)
    if fields.n is not None and fields.n < 1:
        raise bad_request(f"n must be at least 1, got {fields.n}.")
    if fields.n is not None and fields.n > MAX_SEQUENCES:
        raise bad_request(
            f"n must be at most {MAX_SEQUENCES}, got {fields.n}. To increase this limit, set the "
            "VLLM_MAX_N_SEQUENCES environment variable."
        )
    if fields.min_tokens < 0:
        raise bad_request(f"min_tokens must be greater than or equal to 0, got {fields.min_tokens}.")
    if fields.cache_salt == "":
        raise bad_value("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if fields.stream and fields.prompt_logprobs is not None:
        raise bad_value("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if fields.stream and fields.use_beam_search:
        raise bad_request("Streaming is not currently supported with beam search")


def check_chat(request: ChatRequest, flags: VllmOptions) -> None:
    """Raises Refusal for what vLLM refuses in chat requests."""
    check_sampling(request)
    if request.add_generation_prompt and request.continue_final_message:
        raise bad_request("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    if request.top_logprobs and not request.logprobs:
        raise bad_value("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    _check_tools(request, flags)
    if not request.messages:
        raise bad_request(
            "Cannot apply chat template to an empty conversation. Provide at least one message."
        )


def _check_tools(request: ChatRequest, flags: VllmOptions) -> None:
    choice = request.tool_choice
    if request.tools == []:
        message = "`tools` must not be an empty array."
        raise bad_value(f"{message} Either provide at least one tool or omit the field entirely.", "tools")
    if choice not in (None, "none") and not request.tools:
        raise bad_value("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, Mapping) and request.forced_tool is None:
        raise bad_request("The tool specified in `tool_choice` does not match any of the specified `tools`")
    if request.tools and choice != "none" and not flags.tool_call_parser:
        name = (request.forced_tool or {}).get("name")
        named = f'tool_choice=function "{name}" requires --tool-call-parser to be set'
        raise bad_request(named if isinstance(choice, Mapping) else _PARSER_MISSING[choice or "auto"])


def sampling_params(
    fields: SamplingFields,
    *,
    max_tokens: int,
    logprobs: int | None,
    lora: str | None,
    priority: int,
    choice: int = 0,
    forced_ids: tuple[int, ...] | None = None,
) -> SamplingParams:
    """The engine's parameters for one choice."""
    stop = [fields.stop] if isinstance(fields.stop, str) else fields.stop or []
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=fields.min_tokens,
        temperature=1.0 if fields.temperature is None else fields.temperature,
        seed=fields.seed,
        stop=tuple(text for text in stop if text),
        include_stop=fields.include_stop_str_in_output,
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        ignore_eos=fields.ignore_eos,
        logprobs=logprobs,
        priority=priority,
        choice=choice,
        forced_ids=forced_ids,
        lora=lora,
        cache_salt=fields.cache_salt,
        stream_interval=fields.stream_interval,
        use_prefix_cache=fields.prompt_logprobs is None,
    )
