"""What the peers' routers keep of their own dispatches: who saw which prefix, and what is under way where."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from policies.routing.events import (
    BlocksRemoved,
    BlocksStored,
    Dispatched,
    Done,
    Event,
    FirstToken,
    Forgotten,
    Prompt,
)
from policies.routing.policy import R, RequestFacts, Weighed
from policies.routing.prefix_index import PrefixIndex

NO_PROMPT: Final = Prompt((), 1, 1)
UNBOUNDED: Final = 1 << 40


@dataclass(slots=True)
class Flight:
    """One request under way: tokens, and when it was sent."""

    prompt: Prompt
    uncached: float
    at: float


class Account:
    """One replica's: everything under way by ticket, and what of it has no first token yet."""

    __slots__ = ("flights", "pending", "pending_prompt_tokens", "pending_uncached_tokens")

    def __init__(self) -> None:
        self.flights: dict[int, Flight] = {}
        self.pending: dict[int, Flight] = {}
        self.pending_uncached_tokens = 0.0
        self.pending_prompt_tokens = 0.0

    @property
    def batch(self) -> int:
        return len(self.flights)

    def begin(self, ticket: int, flight: Flight) -> None:
        self.flights[ticket] = self.pending[ticket] = flight
        self.pending_uncached_tokens += flight.uncached
        self.pending_prompt_tokens += flight.prompt.tokens

    def prefilled(self, ticket: int) -> None:
        flight = self.pending.pop(ticket, None)
        if flight is not None:
            self.pending_uncached_tokens -= flight.uncached
            self.pending_prompt_tokens -= flight.prompt.tokens

    def end(self, ticket: int) -> None:
        self.prefilled(ticket)
        self.flights.pop(ticket, None)


class Peer:
    """A policy with a peer's rule. `cache_tokens`: how much of each replica it remembers; 0 is without bound.

    `wants_kv_events`: it goes by what the engines say of their caches, not by what it sent them.
    """

    learns = True
    wants_kv_events = False

    def __init__(self, random: Random, cache_tokens: float = 0) -> None:
        self.random = random
        self._cache_tokens = cache_tokens
        self._index: PrefixIndex | None = None
        self._accounts: dict[str, Account] = {}

    # ---- for the rules ----

    def cost(self, replica: R, prompt: Prompt, hit: float, now: float) -> float:  # noqa: ARG002
        """The rule, for peers that choose the least of something. `hit` in tokens; others show their load."""
        return replica.in_flight

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        prompt = request.prompt or NO_PROMPT
        costs = self._costs(prompt, candidates, now)
        return self.one_of([r for r, cost in zip(candidates, costs, strict=True) if cost == min(costs)])

    def weigh(self, request: RequestFacts, candidates: Sequence[R], now: float) -> Sequence[Weighed]:
        costs = self._costs(request.prompt or NO_PROMPT, candidates, now)
        return [Weighed(r.id, cost, {}) for r, cost in zip(candidates, costs, strict=True)]

    def _costs(self, prompt: Prompt, candidates: Sequence[R], now: float) -> list[float]:
        hits = self.hits(prompt)
        return [self.cost(replica, prompt, hits.get(replica.id, 0.0), now) for replica in candidates]

    def hits(self, prompt: Prompt) -> dict[str, float]:
        """Tokens of its longest known prefix by replica; those without one are absent."""
        if self._index is None:
            return {}
        size = prompt.block_tokens
        return {
            name: min(depth * size, prompt.tokens) for name, depth in self._index.match(prompt.blocks).items()
        }

    def account(self, replica: str) -> Account:
        known = self._accounts.get(replica)
        if known is None:
            known = self._accounts[replica] = Account()
        return known

    def remembered(self, replica: str) -> int:
        """Blocks of it that are known."""
        return 0 if self._index is None else self._index.sizes().get(replica, 0)

    def one_of(self, equals: Sequence[R]) -> R:
        return equals[0] if len(equals) == 1 else equals[self.random.randrange(len(equals))]

    # ---- events ----

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched():
                prompt = event.prompt or NO_PROMPT
                uncached = prompt.tokens - self.hits(prompt).get(event.replica, 0.0)
                self.account(event.replica).begin(event.ticket, Flight(prompt, uncached, event.at))
                if not self.wants_kv_events:
                    self._store(event.replica, prompt.blocks, prompt.block_tokens)
            case FirstToken():
                self.account(event.replica).prefilled(event.ticket)
            case Done():
                self.account(event.replica).end(event.ticket)
            case Forgotten():
                self._accounts.pop(event.replica, None)
                if self._index is not None:
                    self._index.forget(event.replica)
            case BlocksStored() | BlocksRemoved():
                self._believe(event)

    def _believe(self, event: BlocksStored | BlocksRemoved) -> None:
        if not self.wants_kv_events:
            return
        if isinstance(event, BlocksStored):
            self._store(event.replica, event.blocks, 0)
        elif self._index is not None:
            self._index.remove(event.replica, event.blocks)

    def _store(self, replica: str, blocks: Sequence[int], block_tokens: float) -> None:
        if not blocks:
            return
        if self._index is None:
            bounded = self._cache_tokens and block_tokens
            self._index = PrefixIndex(
                UNBOUNDED, int(self._cache_tokens / block_tokens) if bounded else UNBOUNDED
            )
        self._index.insert(replica, blocks)
