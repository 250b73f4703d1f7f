"""What this router itself has measured of one replica: it completes what the engine says of itself.

Counted once per attempt, from its outcome; nothing is counted per token.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from policies.outcome import Outcome

_WHOLE_ANSWER_S: Final = 0.001
"""An answer that lasted less from its first byte to its last came whole: its first token is its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMeasurements:
    """Two counts of the moment, then totals since the router began."""

    in_flight: int = 0
    waiting_for_first_token: int = 0
    """A request whose answer comes whole waits to its end."""
    answers: int = 0
    """Answers whose prompt and completion tokens are known."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_told_prompt_tokens: int = 0
    """Prompt tokens of those answers that said how many were cached; TGI and Triton never do."""
    streamed_tokens: int = 0
    streaming_s: float = 0.0
    """Completion tokens of streams, and those streams' seconds from first token to end."""
    first_token_s: float = 0.0
    first_tokens: int = 0
    """Seconds from sending to first token, and of how many streams."""


def total(measurements: Iterable[OwnMeasurements]) -> OwnMeasurements:
    """What several processes measured of one replica, added up."""
    each = list(measurements)
    return OwnMeasurements(
        **{one.name: sum(getattr(m, one.name) for m in each) for one in fields(OwnMeasurements)}
    )


class OwnMeter:
    """Adds up outcomes, one replica's `Meter`. Whatever an attempt came to, what was measured counts."""

    __slots__ = (
        "_answers",
        "_cache_told_prompt_tokens",
        "_cached_tokens",
        "_completion_tokens",
        "_first_token_s",
        "_first_tokens",
        "_prompt_tokens",
        "_streamed_tokens",
        "_streaming_s",
    )

    def __init__(self) -> None:
        self._answers = 0
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._cached_tokens = 0
        self._cache_told_prompt_tokens = 0
        self._streamed_tokens = 0
        self._streaming_s = 0.0
        self._first_token_s = 0.0
        self._first_tokens = 0

    def count(self, outcome: Outcome) -> None:
        prompt_tokens, completion_tokens = outcome.prompt_tokens, outcome.completion_tokens
        if completion_tokens is not None:
            self._completion_tokens += completion_tokens
        if prompt_tokens is not None and completion_tokens is not None:
            self._answers += 1
            self._prompt_tokens += prompt_tokens
            if outcome.cached_tokens is not None:
                self._cached_tokens += outcome.cached_tokens
                self._cache_told_prompt_tokens += prompt_tokens
        first_token_at = outcome.first_token_at
        if first_token_at is None or outcome.ended_at - first_token_at < _WHOLE_ANSWER_S:
            return
        self._first_tokens += 1
        self._first_token_s += first_token_at - outcome.sent_at
        if completion_tokens is not None:
            self._streamed_tokens += completion_tokens
            self._streaming_s += outcome.ended_at - first_token_at

    def replace(self, measured: OwnMeasurements) -> None:
        """Show these totals, which other processes measured."""
        for name in OwnMeter.__slots__:
            setattr(self, name, getattr(measured, name.removeprefix("_")))

    def read(self, in_flight: int, waiting_for_first_token: int) -> OwnMeasurements:
        """The totals, beside the counts of the moment, which the replica keeps."""
        return OwnMeasurements(
            in_flight=in_flight,
            waiting_for_first_token=waiting_for_first_token,
            answers=self._answers,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
            cache_told_prompt_tokens=self._cache_told_prompt_tokens,
            streamed_tokens=self._streamed_tokens,
            streaming_s=self._streaming_s,
            first_token_s=self._first_token_s,
            first_tokens=self._first_tokens,
        )
