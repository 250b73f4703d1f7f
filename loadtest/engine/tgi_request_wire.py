"""TGI's requests: bytes to values, and the plain-text rejections of its HTTP framework (axum, serde).

What the types alone decide is refused here, before anything runs; ranges are checked later, inside the
stream if there is one.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

U32 = Annotated[int, Meta(ge=0, lt=2**32)]
U64 = Annotated[int, Meta(ge=0)]
Size = Annotated[int, Meta(ge=0)]


class Rejected(Exception):
    """A request that never reaches a handler: a status and plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class JsonGrammar(Struct, frozen=True, tag="json"):
    value: Any


class JsonObjectGrammar(Struct, frozen=True, tag="json_object"):
    """An alias of `json`: it, too, needs a schema as its value."""

    value: Any


class RegexGrammar(Struct, frozen=True, tag="regex"):
    value: str


class SchemaConfig(Struct, frozen=True):
    schema: Any
    name: str | None = None


class SchemaGrammar(Struct, frozen=True, tag="json_schema"):
    value: SchemaConfig


Grammar = JsonGrammar | JsonObjectGrammar | RegexGrammar | SchemaGrammar


class Parameters(Struct, frozen=True):
    """`parameters` of the native routes; lengths in tokens."""

    best_of: Size | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: U32 | None = None
    return_full_text: bool | None = None
    stop: tuple[str, ...] = ()
    truncate: Size | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: U64 | None = None
    top_n_tokens: U32 | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None


SAMPLED = Parameters(do_sample=True)
"""What a native request without `parameters` means."""


class GenerateRequest(Struct, frozen=True):
    """`/generate`, `/generate_stream`, `/tokenize`; `/` adds `stream`."""

    inputs: str
    parameters: Parameters = SAMPLED
    stream: bool = False


class ImageUrl(Struct, frozen=True):
    url: str


class TextPart(Struct, frozen=True, tag="text"):
    text: str


class ImagePart(Struct, frozen=True, tag="image_url"):
    image_url: ImageUrl


class Message(Struct, frozen=True):
    """`content` wins where both it and `tool_calls` are given; one of them must be."""

    role: str
    content: str | tuple[TextPart | ImagePart, ...] | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    name: str | None = None

    def text(self) -> str:
        """What the chat template sees."""
        if self.content is None:
            return msgspec.json.encode(self.tool_calls).decode()
        if isinstance(self.content, str):
            return self.content
        return "".join(
            part.text if isinstance(part, TextPart) else f"![]({part.image_url.url})" for part in self.content
        )


class FunctionTool(Struct, frozen=True, omit_defaults=True):
    """`arguments` is another name of `parameters`; one of them must be there, OpenAI's defaults aside."""

    name: str
    description: str | None = None
    parameters: Any = None
    arguments: Any = None

    def __post_init__(self) -> None:
        if self.parameters is None and self.arguments is None:
            raise ValueError("missing field `arguments`")


class Tool(Struct, frozen=True):
    type: str
    function: FunctionTool


class FunctionName(Struct, frozen=True):
    name: str


class NamedTool(Struct, frozen=True):
    type: Literal["function"]
    function: FunctionName


class StreamOptions(Struct, frozen=True):
    include_usage: bool = False


class ChatRequest(Struct, frozen=True):
    """`/v1/chat/completions`. Other fields are ignored; `stream_options` may be absent but not null."""

    messages: tuple[Message, ...]
    model: str | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[float, ...] | None = None
    logprobs: bool | None = None
    top_logprobs: U32 | None = None
    max_tokens: U32 | None = None
    max_completion_tokens: U32 | None = None
    n: U32 | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    stream: bool = False
    seed: U64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: tuple[Tool, ...] | None = None
    tool_prompt: str | None = None
    tool_choice: str | NamedTool | None = None
    response_format: Grammar | None = None
    stream_options: StreamOptions = StreamOptions()

    def __post_init__(self) -> None:
        for message in self.messages:
            if message.content is None and message.tool_calls is None:
                raise ValueError("data did not match any variant of untagged enum MessageBody")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("duplicate field `max_tokens`")


class CompletionRequest(Struct, frozen=True):
    """`/v1/completions`. Token ids are no prompt."""

    prompt: str | tuple[str, ...]
    model: str | None = None
    max_tokens: U32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool = False
    seed: U64 | None = None
    suffix: str | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("Empty array detected. Do not use an empty array for the prompt.")

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt,) if isinstance(self.prompt, str) else self.prompt


Body = TypeVar("Body", ChatRequest, CompletionRequest, GenerateRequest)


def decode(body: bytes, content_type: str, kind: type[Body]) -> Body:
    """One request. Raises `Rejected` with 415, 400 (syntax) or 422 (types)."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise Rejected(415, "Expected request with `Content-Type: application/json`")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as wrong:
        text = f"Failed to deserialize the JSON body into the target type: {_where(wrong)}"
        raise Rejected(422, text) from wrong
    except msgspec.DecodeError as broken:
        raise Rejected(400, f"Failed to parse the request body as JSON: {broken}") from broken


def _where(wrong: msgspec.ValidationError) -> str:
    """`path: what`, as serde's path tracking writes it."""
    what, _, path = str(wrong).partition(" - at `$")
    return f"{path.rstrip('`').lstrip('.')}: {what}" if path else what
