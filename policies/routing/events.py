"""What policies learn from: the life of every request, and what replicas say of their caches.

The same events come from this process, from other workers and from other routers; a policy treats them alike
and must bear that some are late, missing or told twice. `at` is seconds on the clock that `now` is read from.
"""

from collections.abc import Sequence
from typing import NamedTuple

from policies.outcome import Outcome


class Prompt(NamedTuple):
    """A prompt as routing sees it.

    `blocks` are chained 64-bit hashes, one per `block_tokens` tokens: two prompts have equal ones as far as
    they are alike. A rest that fills no block has no hash. `tokens` is its length, often an estimate.
    """

    blocks: Sequence[int]
    tokens: int
    block_tokens: float
    exact: bool = False
    """The length is known, not estimated from a text."""


class Dispatched(NamedTuple):
    """A request was given to a replica. `ticket` names it in what follows, uniquely in the fleet."""

    replica: str
    ticket: int
    at: float
    prompt: Prompt | None = None
    streamed: bool = True
    """Its first token will be seen; an answer that comes whole shows only its end."""


class FirstToken(NamedTuple):
    """The first token came back: the replica's prefill of this request is over."""

    replica: str
    ticket: int
    at: float


class Done(NamedTuple):
    """The replica is rid of the request. `outcome` None: it was never sent.

    `answer` are the hashes of prompt and answer together, where the answer's text is at hand.
    """

    replica: str
    ticket: int
    at: float
    outcome: Outcome | None
    answer: Prompt | None = None


class Forgotten(NamedTuple):
    """The replica was restarted, or flushed its cache: nothing of it is known any more."""

    replica: str
    at: float


class CacheLost(NamedTuple):
    """Nothing is known any more of what the replica caches; of what it is doing, all."""

    replica: str
    at: float


class BlocksStored(NamedTuple):
    """The replica said that it now holds these blocks, in the order of their chain.

    They are of `block_tokens` each; None: of as many as the prompts'.
    """

    replica: str
    at: float
    blocks: Sequence[int]
    block_tokens: float | None = None


class BlocksRemoved(NamedTuple):
    """The replica said that it no longer holds these blocks."""

    replica: str
    at: float
    blocks: Sequence[int]


CacheNews = CacheLost | BlocksStored | BlocksRemoved
"""What replicas say of their caches."""

Event = Dispatched | FirstToken | Done | Forgotten | CacheNews
