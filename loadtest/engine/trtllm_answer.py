"""trtllm-serve's whole answers, from completed generations."""

import time
from uuid import uuid4

from loadtest.engine import trtllm_wire as wire
from loadtest.engine.core import Generation
from loadtest.engine.sampling import Completion
from loadtest.engine.trtllm_stream import Wanted, chat_logprobs, finish_word, text_logprobs, usage_of


def chat_answer(
    generations: tuple[Generation, ...], completions: tuple[Completion, ...], wanted: Wanted
) -> wire.ChatAnswer:
    return wire.ChatAnswer(
        id=f"chatcmpl-{uuid4().hex}",
        created=int(time.time()),
        model=wanted.model,
        choices=tuple(_chat_choice(index, done, wanted) for index, done in enumerate(completions)),
        usage=usage_of(generations),
    )


def _chat_choice(index: int, done: Completion, wanted: Wanted) -> wire.ChatChoice:
    message = wire.Message("assistant", wanted.echo + done.text, reasoning_content="")
    reason = finish_word(done.finish_reason)
    if wanted.tool is not None:
        function = wire.CalledFunction(wanted.tool, done.text)
        call = wire.ToolCall(f"chatcmpl-tool-{uuid4().hex}", "function", function)
        message = wire.Message("assistant", "", None if wanted.tool_named else "", tool_calls=(call,))
        reason = "tool_calls" if reason == "stop" and not wanted.tool_named else reason
    logprobs = (
        chat_logprobs(done.logprobs or (), wanted.top_logprobs, whole=True) if wanted.logprobs else None
    )
    return wire.ChatChoice(index, message, logprobs, reason, done.stop_reason)


def text_answer(
    generations: tuple[Generation, ...],
    completions: tuple[Completion, ...],
    wanted: Wanted,
    choices: int,
    echoes: tuple[str, ...],
) -> wire.TextAnswer:
    prompts = [usage_of(generations[at : at + choices]) for at in range(0, len(generations), choices)]
    return wire.TextAnswer(
        id=f"cmpl-{uuid4().hex}",
        created=int(time.time()),
        model=wanted.model,
        choices=tuple(
            _text_choice(index, done, wanted, echoes[index // choices] if echoes else "")
            for index, done in enumerate(completions)
        ),
        usage=wire.usage(
            sum(one.prompt_tokens for one in prompts),
            sum(one.completion_tokens for one in prompts),
            sum(one.prompt_tokens_details.cached_tokens for one in prompts),
        ),
    )


def _text_choice(index: int, done: Completion, wanted: Wanted, echo: str) -> wire.TextChoice:
    show = wanted.detokenize
    return wire.TextChoice(
        index=index,
        text=echo + done.text if show else "",
        token_ids=None if show else done.token_ids,
        logprobs=text_logprobs(done.logprobs or ()) if wanted.logprobs else None,
        finish_reason=finish_word(done.finish_reason),
        stop_reason=done.stop_reason,
    )
