"""One request of a release as its analysis sees it: which arm, how it went, how long it took.

The analysis compares two arms, the canary and stable. A request counts for the arm that it was assigned to,
also where stable answered in the canary's place.
"""

import enum
from typing import NamedTuple


class Bad(enum.Enum):
    """What can be wrong with a request. Each of them is one bad event; a request may be several."""

    ERROR = "error"
    """Refused, reset, an error status: before anything reached the client."""
    STREAM_ERROR = "stream_error"
    """An error frame, an abort or a break in the middle of an answer."""
    TIMEOUT = "timeout"
    EMPTY = "empty"
    """Completed without one token."""
    LENGTH = "length"
    """Cut off by its token limit."""
    CONTENT_FILTER = "content_filter"
    TOOL_JSON = "tool_json"
    """The arguments of a tool call are no JSON."""
    REPETITION = "repetition"
    """The answer goes round in circles."""
    CLIENT_LEFT = "client_left"


class Observation(NamedTuple):
    """One request. Times are seconds, None where there was nothing to measure.

    `share` is the canary's share of this model's compared traffic when the request was assigned, between 0
    and 1 exclusive: the chance that it had to come to the canary. `unit` and `tenant` are 64-bit hashes;
    `unit` is what keeps to one arm (the session by default). `ordinal` counts the requests that its replica
    has served, from 0: the first ones find a cold cache.
    """

    canary: bool
    share: float
    at: float
    """Wall clock, seconds since the epoch."""
    unit: int
    tenant: int
    ordinal: int
    bad: frozenset[Bad] = frozenset()
    time_to_first_token_s: float | None = None
    inter_token_s: float | None = None
    """Mean time between the pieces of a streamed answer."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
