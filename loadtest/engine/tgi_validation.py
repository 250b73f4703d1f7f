"""TGI's own failures, and its validation of ranges and lengths, which runs inside the stream if there is one.

Every failure has a status and a type; in a stream of the OpenAI kind only the message survives.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from loadtest.engine.guided import guided_text
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.tgi_request_wire import (
    Grammar,
    JsonGrammar,
    JsonObjectGrammar,
    Parameters,
    SchemaGrammar,
)
from loadtest.engine.tgi_wire import Error
from loadtest.engine.tokens import encode

DEFAULT_GENERATION_LENGTH = 1024
"""Longer answers are asked of the model in pieces; only a piece counts in the check against the context."""


class Failure(Exception):
    """Why there is no answer, in TGI's words."""

    def __init__(self, status: int, error_type: str, message: str, counted: str | None = None) -> None:
        """`counted`: the label under which the metrics count it."""
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.counted = counted

    @property
    def body(self) -> Error:
        return Error(self.message, self.error_type)


def overloaded() -> Failure:
    return Failure(429, "overloaded", "Model is overloaded", "overloaded")


def invalid(what: str) -> Failure:
    return Failure(422, "validation", f"Input validation error: {what}", "validation")


def generation_failed(what: str) -> Failure:
    return Failure(424, "generation", f"Request failed during generation: Server error: {what}")


def incomplete(*, streamed: bool) -> Failure:
    if streamed:
        return Failure(500, "incomplete_generation_stream", "Incomplete generation stream", "incomplete")
    return Failure(500, "incomplete_generation", "Incomplete generation", "incomplete")


def tool_error(what: str) -> Failure:
    return Failure(422, "tool_error", f"Tool error: {what}")


def template_error(what: str) -> Failure:
    return Failure(422, "template_error", f"Template error: {what}", "template")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server allows; lengths in tokens."""

    max_total_tokens: int
    max_input_tokens: int
    max_best_of: int
    max_stop_sequences: int
    max_top_n_tokens: int


@dataclass(frozen=True, slots=True)
class Job:
    """A request in the engine's own terms, whichever endpoint it came through."""

    inputs: str
    parameters: Parameters
    forced: tuple[str, ...] = ()
    """Pieces of text that guided decoding enforces, each split into tokens by itself."""
    logprobs: bool = False
    """Whether the answer shows log-probabilities."""


def validated(
    job: Job, limits: Limits, loras: tuple[str, ...], *, streamed: bool
) -> tuple[list[int], SamplingParams]:
    """The prompt's ids and how to sample. Raises `Failure` with TGI's message for what is out of range."""
    parameters = job.parameters
    if streamed and (parameters.best_of or 1) != 1:
        raise invalid("`best_of` != 1 is not supported when streaming tokens")
    if streamed and parameters.decoder_input_details:
        raise invalid("`decoder_input_details` == true is not supported when streaming tokens")
    _check_sampling(parameters, limits)
    if not job.inputs:
        raise invalid("`inputs` cannot be empty")
    if parameters.truncate is not None and not 0 < parameters.truncate <= limits.max_input_tokens:
        raise invalid(
            f"`truncate` must be strictly positive and less than {limits.max_input_tokens}. "
            f"Given: {parameters.truncate}"
        )
    ids = encode(job.inputs)
    if parameters.truncate is not None:
        ids = ids[-parameters.truncate :]
    longest = _longest(len(ids), parameters.max_new_tokens, limits)
    forced = job.forced or _forced(parameters.grammar)
    return ids, _sampling(job, longest, forced, loras)


def _check_sampling(asked: Parameters, limits: Limits) -> None:
    """Ranges, in the order in which TGI checks them."""
    best_of = 1 if asked.best_of is None else asked.best_of
    samples = asked.do_sample or any(
        value is not None for value in (asked.temperature, asked.top_k, asked.top_p, asked.typical_p)
    )
    rules = (
        (
            1 <= best_of <= limits.max_best_of,
            f"`best_of` must be > 0 and <= {limits.max_best_of}. Given: {best_of}",
        ),
        (best_of == 1 or samples, "you must use sampling when `best_of` is > 1"),
        (_above(asked.temperature, 0), "`temperature` must be strictly positive"),
        (_above(asked.repetition_penalty, 0), "`repetition_penalty` must be strictly positive"),
        (-2 <= (asked.frequency_penalty or 0) <= 2, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        (_share(asked.top_p), "`top_p` must be > 0.0 and < 1.0"),
        (_share(asked.typical_p), "`typical_p` must be > 0.0 and < 1.0"),
        (_above(asked.top_k, 0), "`top_k` must be strictly positive"),
        (asked.max_new_tokens != 0, "`max_new_tokens` must be strictly positive"),
        (
            len(asked.stop) <= limits.max_stop_sequences,
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {len(asked.stop)}",
        ),
        (best_of == 1 or asked.seed is None, "`seed` must not be set when `best_of` > 1"),
        (
            (asked.top_n_tokens or 0) <= limits.max_top_n_tokens,
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {asked.top_n_tokens}",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise invalid(message)


def _above(value: float | None, bound: float) -> bool:
    return value is None or value > bound


def _share(value: float | None) -> bool:
    """Strictly between 0 and 1: the 1 that OpenAI clients send as a default is out."""
    return value is None or 0 < value < 1


def _longest(prompt_tokens: int, asked: int | None, limits: Limits) -> int:
    """The answer's limit in tokens."""
    room = max(0, limits.max_total_tokens - prompt_tokens)
    wanted = room if asked is None else asked
    piece = min(wanted, DEFAULT_GENERATION_LENGTH)
    if prompt_tokens + piece > limits.max_total_tokens:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
            f"Given: {prompt_tokens} `inputs` tokens and {piece} `max_new_tokens`"
        )
    if prompt_tokens > limits.max_input_tokens:
        raise invalid(
            f"`inputs` must have less than {limits.max_input_tokens} tokens. Given: {prompt_tokens}"
        )
    return min(wanted, room)


def _forced(grammar: Grammar | None) -> tuple[str, ...]:
    """A document of the grammar's schema; a regular expression is taken on trust."""
    if isinstance(grammar, SchemaGrammar):
        schema = grammar.value.schema
    elif isinstance(grammar, JsonGrammar | JsonObjectGrammar):
        schema = grammar.value
    else:
        return ()
    text = guided_text(_checked(schema))
    return (text,) if text else ()


def _checked(schema: Any) -> Any:
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema)
        except msgspec.DecodeError as broken:
            raise invalid(f"grammar is not valid: {broken}") from broken
    if not isinstance(schema, dict):
        raise invalid("grammar is not supported")
    if "properties" not in schema:
        raise invalid("grammar is not valid: Grammar must have a 'properties' field")
    return schema


def _sampling(job: Job, longest: int, forced: tuple[str, ...], loras: tuple[str, ...]) -> SamplingParams:
    asked = job.parameters
    samples = asked.do_sample or asked.temperature is not None
    temperature = 1.0 if asked.temperature is None else asked.temperature
    ids = tuple(token for piece in forced for token in encode(piece))
    return SamplingParams(
        max_tokens=longest,
        temperature=temperature if samples else 0.0,
        seed=asked.seed,
        stop=asked.stop,
        include_stop=True,
        logprobs=(asked.top_n_tokens or 0) if job.logprobs else None,
        forced_ids=ids if forced else None,
        lora=asked.adapter_id if asked.adapter_id in loras else None,
        use_prefix_cache=not asked.decoder_input_details,
    )
