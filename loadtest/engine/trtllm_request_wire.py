"""trtllm-serve's requests: a closed list of fields, and pydantic's words for everything else.

`extra="forbid"`: one unknown field refuses the whole request.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

Unit = Annotated[float, Meta(ge=0, le=1)]
Stop = str | tuple[str, ...] | None
TokenIds = tuple[int, ...]
Object = dict[str, Any]

NEW_FIELDS: Final = frozenset(
    {"priority", "conversation_params", "thinking", "thinking_token_budget", "agent_hierarchy",
     "parallel_tool_calls", "media_io_kwargs", "injected_chat_template_kwargs", "prompt_token_ids_b64"}
)  # fmt: skip
"""Fields that servers before mid-2026 do not know."""


class Invalid(Exception):
    """A body that validation refuses; the text is what the server says."""


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Usage is on as soon as the object is there."""

    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class FunctionTool(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Tool(Struct, frozen=True, forbid_unknown_fields=True):
    function: FunctionTool
    type: Literal["function"] = "function"


class FunctionName(Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class NamedTool(Struct, frozen=True, forbid_unknown_fields=True):
    function: FunctionName
    type: Literal["function"] = "function"


class ResponseFormat(Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text", "json", "json_schema", "json_object", "regex", "ebnf", "structural_tag"]
    schema: Object | None = None
    json_schema: Object | None = None
    regex: str | None = None
    ebnf: str | None = None
    format: Object | None = None


class LoraRequest(Struct, frozen=True):
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


class Common(Struct, frozen=True, kw_only=True):
    """What both endpoints know; lengths in tokens."""

    model: str
    frequency_penalty: float | None = 0.0
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    n: int = 1
    presence_penalty: float | None = 0.0
    seed: int | None = None
    stop: Stop = ()
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    best_of: int | None = None
    echo: bool | None = False
    use_beam_search: bool = False
    top_k: int = 0
    top_p_min: float = 0.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    stop_token_ids: TokenIds | None = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: Annotated[int, Meta(ge=1)] | None = None
    lora_request: LoraRequest | None = None
    prompt_ignore_length: int | None = 0
    thinking_token_budget: int | None = None
    response_format: ResponseFormat | None = None
    disaggregated_params: Object | None = None
    priority: Unit | None = None
    conversation_params: Object | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)


class ChatRequest(Common, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: tuple[Object, ...]
    prompt_token_ids: TokenIds | None = None
    prompt_token_ids_b64: str | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    max_completion_tokens: int | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = "none"
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["low", "medium", "high", "max", "none"] | None = "low"
    thinking: Object | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    documents: tuple[dict[str, str], ...] | None = None
    chat_template: str | None = None
    chat_template_kwargs: Object | None = None
    injected_chat_template_kwargs: tuple[str, ...] | None = None
    media_io_kwargs: Object | None = None
    cache_salt: str | None = None
    agent_hierarchy: Object | None = None
    mm_processor_kwargs: Object | None = None

    @property
    def longest(self) -> int | None:
        """`max_tokens` is another name of `max_completion_tokens`."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


class CompletionRequest(Common, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: Any
    logprobs: int | None = None
    suffix: str | None = None
    return_context_logits: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        if not _is_prompt(self.prompt):
            raise ValueError("Input should be a valid string or list")

    @property
    def prompts(self) -> tuple[str | TokenIds, ...]:
        """One or several prompts, each text or token ids."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        if self.prompt and isinstance(self.prompt[0], int):
            return (tuple(self.prompt),)
        return tuple(one if isinstance(one, str) else tuple(one) for one in self.prompt)


def _is_prompt(value: object) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and (
        _all(value, int) or _all(value, str) or all(isinstance(one, list) and _all(one, int) for one in value)
    )


def _all(values: list[Any], kind: type) -> bool:
    return all(isinstance(one, kind) and not isinstance(one, bool) for one in values)


Body = TypeVar("Body", ChatRequest, CompletionRequest)


def decode(body: bytes, kind: type[Body], *, knows_new_fields: bool) -> Body:
    """One request; raises `Invalid` with pydantic's wording."""
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError as broken:
        what = f"JSON decode error: {broken}"
        raise Invalid(_errors(_mistake("json_invalid", ("body", 0), what, {}))) from None
    if not isinstance(fields, dict):
        raise Invalid(
            _errors(_mistake("model_attributes_type", ("body",), "Input should be an object", fields))
        )
    _check_before(fields)
    known = set(kind.__struct_fields__) - (set() if knows_new_fields else NEW_FIELDS)
    wrong = [
        _mistake("missing", ("body", one.name), "Field required", fields)
        for one in msgspec.structs.fields(kind)
        if one.required and one.name not in fields
    ] + [
        _mistake("extra_forbidden", ("body", name), "Extra inputs are not permitted", value)
        for name, value in fields.items()
        if name not in known
    ]
    if wrong:
        raise Invalid(_errors(*wrong))
    return _converted(fields, kind)


def _check_before(fields: Mapping[str, Any]) -> None:
    """The validators that run on the raw object."""
    said = ""
    if fields.get("stream_options") and not fields.get("stream"):
        said = "Value error, Stream options can only be defined when stream is true."
    elif fields.get("suffix"):
        said = "Value error, suffix is not supported"
    if said:
        raise Invalid(_errors(_mistake("value_error", ("body",), said, fields)))


def _converted(fields: Mapping[str, Any], kind: type[Body]) -> Body:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as wrong:
        what, _, path = str(wrong).partition(" - at `$")
        steps = path.rstrip("`").replace("[", ".").replace("]", "").split(".")
        names: tuple[str, ...] = tuple(step for step in steps if step)
        given = fields.get(names[0]) if names else fields
        raise Invalid(_errors(_mistake("type_error", ("body", *names), what, given))) from wrong


def _mistake(kind: str, where: tuple[str | int, ...], what: str, given: Any) -> Mapping[str, Any]:
    return {"type": kind, "loc": where, "msg": what, "input": given}


def _errors(*mistakes: Mapping[str, Any]) -> str:
    """`str()` of FastAPI's exception."""
    plural = "" if len(mistakes) == 1 else "s"
    return f"{len(mistakes)} validation error{plural}: " + ", ".join(str(one) for one in mistakes)
