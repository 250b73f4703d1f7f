"""One running generation as its consumer sees it: tokens become text, stop strings are found, outputs are
pushed.

Outputs go to one callback, synchronously from the engine's step, so that a stream costs no task switch per
token; or they are iterated, or awaited as a whole.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from loadtest.engine.chain import logprob_of
from loadtest.engine.sampling import Completion, FinishReason, Output, SamplingParams, TokenLogprob
from loadtest.engine.sequence import Sequence
from loadtest.engine.tokens import Detokenizer

Receiver = Callable[[Output], None]


class TextAssembler:
    """Tokens to text, holding back what could still become a stop string."""

    __slots__ = ("_detokenizer", "_held", "_hold", "_include_stop", "_min_tokens", "_stop")

    def __init__(self, params: SamplingParams) -> None:
        self._detokenizer = Detokenizer()
        self._stop = params.stop
        self._include_stop = params.include_stop
        self._min_tokens = params.min_tokens
        self._hold = max(map(len, params.stop), default=1) - 1
        self._held = ""

    def push(self, token_id: int, count: int, *, last: bool, silent: bool = False) -> tuple[str, str | None]:
        """Text to release after the `count`-th token, and the stop string that ends the output here."""
        text = "" if silent else self._detokenizer.push(token_id)
        if not self._stop:
            return text, None
        text = self._held + text
        found = self._find(text) if count > self._min_tokens else None
        if found is not None:
            at, stop = found
            return text[: at + len(stop) if self._include_stop else at], stop
        keep = 0 if last else min(self._hold, len(text))
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], None

    def _find(self, text: str) -> tuple[int, str] | None:
        hits = [(at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        return min(hits, default=None)

    def flush(self) -> str:
        """What is still held back, when something else ends the output."""
        held, self._held = self._held, ""
        return held


class Generation:
    """Made by `EngineCore.submit`. Read by `subscribe`, by `async for`, or by `completed`: by one of them."""

    def __init__(self, sequence: Sequence, interval: int) -> None:
        self.sequence = sequence
        self.error: str | None = None
        """What went wrong, once an output with finish reason "error" came."""
        self._interval = interval
        self._assembler = TextAssembler(sequence.params)
        self._pending: list[tuple[int, str]] = []
        self._sent = 0
        self._receiver: Receiver | None = None
        self._unread: deque[Output] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._finished = False

    @property
    def params(self) -> SamplingParams:
        return self.sequence.params

    @property
    def prompt_tokens(self) -> int:
        return self.sequence.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the prefix cache; 0 until it is scheduled."""
        return self.sequence.cached_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens sampled so far, the end token included."""
        return self.sequence.output_tokens

    @property
    def prompt_ids(self) -> list[int]:
        return self.sequence.tokens[: self.sequence.prompt_tokens]

    @property
    def arrived_s(self) -> float:
        """Monotonic seconds; so are the other times."""
        return self.sequence.arrived_s

    @property
    def scheduled_s(self) -> float | None:
        return self.sequence.scheduled_s

    @property
    def first_token_s(self) -> float | None:
        return self.sequence.first_token_s

    @property
    def last_token_s(self) -> float | None:
        return self.sequence.last_token_s

    @property
    def queue_s(self) -> float | None:
        """Seconds from arrival to the first step; None while it waits."""
        scheduled = self.sequence.scheduled_s
        return None if scheduled is None else scheduled - self.sequence.arrived_s

    @property
    def finished(self) -> bool:
        """Whether its last output was given."""
        return self._finished

    def subscribe(self, receiver: Receiver) -> None:
        """Push all outputs, those that came already included, to this callback."""
        self._receiver = receiver
        while self._unread:
            receiver(self._unread.popleft())

    async def __aiter__(self) -> AsyncIterator[Output]:
        """All outputs; the last one has a finish reason."""
        while True:
            while not self._unread:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            output = self._unread.popleft()
            yield output
            if output.finish_reason is not None:
                return

    async def completed(self) -> Completion:
        """Wait for the end and give everything."""
        return gathered([output async for output in self])

    def take(self, token_id: int) -> str | None:
        """One sampled token, from the step loop; returns a stop string if that ended the text here."""
        sequence = self.sequence
        last = sequence.finish_reason is not None
        silent = sequence.stop_reason is not None and not sequence.params.include_stop
        text, stop = self._assembler.push(token_id, sequence.output_tokens, last=last, silent=silent)
        self._pending.append((token_id, text))
        if stop is not None:
            self._emit("stop", stop)
        elif last:
            self._emit(sequence.finish_reason, sequence.stop_reason)
        elif self._sent == 0 or len(self._pending) >= self._interval:
            self._emit(None, None)
        return stop

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """End from outside, releasing held-back text. Does nothing after the end."""
        if self._finished:
            return
        self.error = error
        self._emit(reason, None, tail=self._assembler.flush())

    def _emit(self, reason: FinishReason | None, stop: str | int | None, tail: str = "") -> None:
        ids = tuple([token_id for token_id, _ in self._pending])
        text = "".join([text for _, text in self._pending]) + tail
        self._pending.clear()
        self._sent += len(ids)
        self._finished = reason is not None
        output = Output(ids, text, reason, stop, self._logprobs(ids))
        if self._receiver is not None:
            self._receiver(output)
            return
        self._unread.append(output)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _logprobs(self, ids: tuple[int, ...]) -> tuple[TokenLogprob, ...] | None:
        wanted = self.sequence.params.logprobs
        return None if wanted is None else tuple(logprob_of(token_id, wanted) for token_id in ids)


def gathered(outputs: list[Output]) -> Completion:
    """Join all outputs of one generation; the last one must have a finish reason."""
    last = outputs[-1]
    logprobs = [entry for output in outputs for entry in output.logprobs or ()]
    return Completion(
        token_ids=tuple(token_id for output in outputs for token_id in output.token_ids),
        text="".join(output.text for output in outputs),
        finish_reason=last.finish_reason or "abort",
        stop_reason=last.stop_reason,
        logprobs=None if last.logprobs is None else tuple(logprobs),
    )
