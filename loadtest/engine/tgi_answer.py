"""TGI's whole answers, from completed generations."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from loadtest.engine import tgi_native_wire as native
from loadtest.engine import tgi_wire as wire
from loadtest.engine.chain import logprob_of
from loadtest.engine.core import Generation
from loadtest.engine.sampling import Completion
from loadtest.engine.tgi_request_wire import Parameters
from loadtest.engine.tgi_stream import finish_word, logprobs_of, native_token, openai_finish_word
from loadtest.engine.tgi_validation import Job, tool_error
from loadtest.engine.tokens import token_text


@dataclass(frozen=True, slots=True)
class Timed:
    """One finished job. Times are monotonic seconds."""

    job: Job
    generation: Generation
    completion: Completion
    started_s: float
    ended_s: float = field(default_factory=time.monotonic)

    @property
    def total_s(self) -> float:
        return self.ended_s - self.started_s

    @property
    def inference_s(self) -> float:
        return self.ended_s - (self.generation.scheduled_s or self.generation.arrived_s)


def usage_of(done: Sequence[Timed]) -> wire.Usage:
    """Tokens of all prompts together."""
    return wire.usage(
        sum(one.generation.prompt_tokens for one in done), sum(one.generation.output_tokens for one in done)
    )


def chat_answer(model: str, done: Timed, calls_tool: bool) -> wire.ChatAnswer:
    """A message or a tool call. Raises `Failure` if the call was cut off."""
    completion = done.completion
    message = _called(completion.text) if calls_tool else wire.Message(content=completion.text)
    reason = openai_finish_word(completion.finish_reason, completion.stop_reason)
    choice = wire.ChatChoice(0, message, logprobs_of(completion.logprobs), reason)
    return wire.ChatAnswer(created=int(time.time()), model=model, choices=(choice,), usage=usage_of([done]))


def _called(text: str) -> wire.Message:
    try:
        arguments = msgspec.json.decode(text, type=dict[str, dict[str, object]])["function"]
    except msgspec.DecodeError as broken:
        raise tool_error(f"Failed to parse generated text: {broken} {text!r}") from broken
    name = str(arguments.pop("_name"))
    function = wire.CalledFunction(None, name, msgspec.json.encode(arguments).decode())
    return wire.Message(tool_calls=(wire.ToolCall("0", "function", function),))


def text_answer(model: str, done: Sequence[Timed]) -> wire.TextAnswer:
    """All prompts' texts; the finish words are OpenAI's here, unlike in the stream."""
    choices = tuple(
        wire.TextChoice(
            index,
            one.completion.text,
            finish_reason=openai_finish_word(one.completion.finish_reason, one.completion.stop_reason),
        )
        for index, one in enumerate(done)
    )
    return wire.TextAnswer(created=int(time.time()), model=model, choices=choices, usage=usage_of(done))


def native_answer(
    asked: Parameters, done: Sequence[Timed], prefix: str, seed: int | None
) -> native.Generated:
    """The first of the `best_of` texts; the others are in the details, which come only when asked for."""
    first, *others = done
    text = prefix + first.completion.text
    if not (asked.details or asked.decoder_input_details):
        return native.Generated(text)
    completion = first.completion
    details = native.Details(
        finish_word(completion.finish_reason, completion.stop_reason),
        first.generation.output_tokens,
        seed,
        _prefill(first) if asked.decoder_input_details else (),
        _tokens(completion),
        tuple(_best_of(one, prefix, seed) for one in others) if others else msgspec.UNSET,
    )
    return native.Generated(text, details)


def _best_of(one: Timed, prefix: str, seed: int | None) -> native.BestOf:
    completion = one.completion
    return native.BestOf(
        prefix + completion.text,
        finish_word(completion.finish_reason, completion.stop_reason),
        one.generation.output_tokens,
        seed,
        (),
        _tokens(completion),
    )


def _prefill(one: Timed) -> tuple[native.PrefillToken, ...]:
    return tuple(
        native.PrefillToken(token_id, token_text(token_id), logprob_of(token_id, 0).logprob)
        for token_id in one.generation.prompt_ids
    )


def _tokens(completion: Completion) -> tuple[native.Token, ...]:
    return tuple(native_token(token_id, token_text(token_id)) for token_id in completion.token_ids)
