"""How one attempt on one replica ended: the single value that leases, breakers and learners read."""

import enum
from typing import NamedTuple


class Ending(enum.Enum):
    """What became of an attempt. Only `FAILED` and `TIMED_OUT` are held against the replica."""

    word: str

    def __init__(self, word: str) -> None:
        # Enum's own `value` is a Python function.
        self.word = word

    COMPLETED = "completed"
    CLIENT_LEFT = "client_left"
    CLIENT_ERROR = "client_error"
    """The replica answered that the request itself is wrong (4xx)."""
    SATURATED = "saturated"
    """The replica is full (429, 503 of a queue, TGI's `overloaded`)."""
    FAILED = "failed"
    """Refused, reset, broken protocol, an error status or an error frame."""
    TIMED_OUT = "timed_out"


class Outcome(NamedTuple):
    """One attempt. Times are seconds on the router's monotonic clock; tokens are None where nobody said."""

    ending: Ending
    sent_at: float
    first_token_at: float | None
    ended_at: float
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def blames_replica(self) -> bool:
        return self.ending is Ending.FAILED or self.ending is Ending.TIMED_OUT
