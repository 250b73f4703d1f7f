"""vLLM's generation requests: which fields it reads, what it refuses, and the sampling parameters they come
to.

Unknown fields are ignored. A body that does not fit the types is `Bad Request`; values that do not fit
together are `BadRequestError`.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from loadtest.engine.sampling import SamplingParams
from loadtest.engine.vllm_errors import bad_request, invalid_body

Body = TypeVar("Body", bound=msgspec.Struct)


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True):
    """What chat and completions have in common."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
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


def decode_body(body: bytes, content_type: str | None, kind: type[Body]) -> Body:
    """Read a JSON body; raises Refusal with vLLM's 400."""
    if content_type is None or content_type.split(";")[0].strip().lower() != "application/json":
        raise invalid_body("Unsupported Media Type: Only 'application/json' is allowed")
    try:
        return msgspec.convert(msgspec.json.decode(body), kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid_body(_validation_error("value_error", str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid_body(_validation_error("json_invalid", f"JSON decode error: {error}")) from error


def _validation_error(kind: str, message: str) -> str:
    return f"1 validation error:\n  {{'type': {kind!r}, 'loc': ('body',), 'msg': {message!r}}}"


def check_sampling(fields: SamplingFields) -> None:
    """Raises Refusal for values and combinations that vLLM refuses on both endpoints."""
    if fields.stream_options is not None and not fields.stream:
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    if fields.temperature is not None and fields.temperature < 0:
        raise bad_request(f"temperature must be non-negative, got {fields.temperature}.", "temperature")
    if fields.top_p is not None and not 0 < fields.top_p <= 1:
        raise bad_request(f"top_p must be in (0, 1], got {fields.top_p}.", "top_p")
    if fields.n is not None and fields.n < 1:
        raise bad_request(f"n must be at least 1, got {fields.n}.", "n")
    if fields.min_tokens < 0:
        raise bad_request(f"min_tokens must be greater than or equal to 0, got {fields.min_tokens}.")
    if fields.cache_salt == "":
        raise bad_request("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if fields.stream and fields.prompt_logprobs is not None:
        raise bad_request("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")


def check_chat(request: ChatRequest) -> None:
    """Raises Refusal for what vLLM refuses in chat requests."""
    check_sampling(request)
    if request.add_generation_prompt and request.continue_final_message:
        raise bad_request("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    if request.tools == []:
        raise bad_request("`tools` must not be an empty array.", "tools")
    if request.tool_choice not in (None, "none") and not request.tools:
        raise bad_request("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(request.tool_choice, Mapping) and request.forced_tool is None:
        raise bad_request("The tool specified in `tool_choice` does not match any of the specified `tools`")
    if request.top_logprobs and not request.logprobs:
        raise bad_request("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    if not request.messages:
        raise bad_request("You must provide at least one message.", "messages")


def output_limit(asked: int | None, prompt_tokens: int, max_model_len: int, default: int | None) -> int:
    """The longest output; raises Refusal if prompt and output do not fit the context.

    Without a wish the default counts, as far as there is room; without a default, all the room there is.
    """
    if asked is not None and asked < 1:
        raise bad_request(f"max_tokens must be at least 1, got {asked}.", "max_tokens")
    room = max_model_len - prompt_tokens
    wanted = asked if asked is not None else max(1, min(room, default if default is not None else room))
    if wanted > room:
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens. However, you requested "
            f"{wanted} output tokens and your prompt contains at least {prompt_tokens} input tokens, for a "
            f"total of at least {prompt_tokens + wanted} tokens. Please reduce the length of the input "
            "prompt or the number of requested output tokens.",
            "input_tokens",
        )
    return wanted


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
        use_prefix_cache=fields.prompt_logprobs is None,
    )
