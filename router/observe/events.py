"""What happened, as values. The core returns them; observers count and write them."""

from collections.abc import Callable, Sequence

import msgspec

from policies.release.observation import Bad
from policies.release.pairs import Pair
from policies.routing.events import Prompt
from router.api.request import Usage
from router.fleet.routes import Arm

GAP_BOUNDS_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the buckets for the gaps between a stream's reads up to its finish reason, seconds."""


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try at one replica. `reason` is `first`, or why the try before it failed (an error code)."""

    replica: str
    reason: str
    ending: str
    wait_s: float
    """From the request's last byte out to the first good answer byte in, or to the failure."""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One request, whatever became of it. Exactly one of these for every request that was read.

    `model`, `version`, `engine`, `replica` are empty where the request never got so far; a model that
    does not exist is empty too, so that unknown names never become labels. Durations are seconds.
    `outcome` is `ok`, `client_left`, or the code of the error that the client saw.
    """

    at: float
    """Wall clock when the request had been read, seconds since the epoch."""
    request_id: str
    path: str
    model: str = ""
    version: str = ""
    engine: str = ""
    replica: str = ""
    stream: bool = False
    status: int
    outcome: str
    attempts: Sequence[Attempt] = ()
    duration_s: float
    overhead_s: float
    """Until the answer's first byte, what the router itself added: not waiting for a replica."""
    queue_wait_s: float = 0.0
    time_to_first_token_s: float | None = None
    gaps: Sequence[int] = ()
    """Reads of this stream whose gap to the one before fell in each bucket of `GAP_BOUNDS_S`, then above."""
    gap_sum_s: float = 0.0
    usage: Usage | None = None
    finish_reason: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    error: str = ""
    """The message that the client saw, if any."""
    session: str | None = None
    tenant: str = ""
    key: str = ""
    """The id of the client's key."""
    limits: Sequence[tuple[str, str]] = ()
    """What each limit said that was asked: its name, and `admitted`, `refused`, `exceeds` or `stopped`."""
    reserved_tokens: int | None = None
    charged_tokens: int | None = None
    """What limits count: reserved before, charged after; None where no limit counts tokens."""
    prompt: Prompt | None = None
    """Its hashed blocks, where they are to be recorded."""
    arm: Arm | None = None
    """What a release made of it; `version` is who answered, which may be stable in the canary's place."""
    unit: str = ""
    """What it was assigned to a version by."""
    ordinal: int = 0
    """Requests that its replica had served before."""
    signs: frozenset[Bad] = frozenset()
    """What is wrong with an answer that looks like one; looked for where a release compares."""


Observer = Callable[[Finished], None]


class Copied(msgspec.Struct, frozen=True, gc=False):
    """What became of a copy of a request, once for `sent` and once for its end.

    `against` is the version that served the client, `version` the one that gets copies. `result` is
    `skipped` (the client got no answer to compare with), `dropped_saturated`, `dropped_unavailable` (no
    replica could take it), `dropped_budget`, or `sent`; and of what was sent `stopped` (a client needed its
    room, or the router ended), `failed`, or `compared`. `code` says why, if it failed or was unavailable.
    """

    model: str
    against: str
    version: str
    result: str
    code: str = ""
    pair: Pair | None = None
    """Both answers, if they were compared."""
