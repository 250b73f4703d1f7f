"""One replica's account: what waits there, what room is left, and from these its price as of the last event.

A price is made when something happens and read at every choice. It is the greatest lower bound of what a
request costs there that needs no look at its ledger, and it says until when the bound is the cost itself.
"""

from math import inf
from typing import Final, NamedTuple

from policies.routing.ledger import Ledger
from policies.routing.policy import ReplicaView

_FULL: Final = 0.97
"""How much of its memory an engine fills before requests wait."""
_FIRST_SHARE: Final = 0.1


class Weights(NamedTuple):
    """What of `ExpectedLatency.Options` a price is made with."""

    others: float
    own_work: float
    metrics_fresh_s: float
    slow_start_s: float


class Cost(NamedTuple):
    """What a request would cost on one replica, seconds; and what that was made from, tokens and requests."""

    wait_s: float
    prefill_s: float
    memory_s: float
    stall_s: float
    slowdown_s: float
    decode_s: float
    hit_tokens: float
    uncached_tokens: float
    batch: int
    pending: int
    newness: float
    """What a newcomer's total is multiplied by; 1 for the others."""
    total: float


class Account:
    """`tokens` is what its memory holds until a scrape says; it takes load slowly until `settled_at`.

    A request whose prefill takes `p` seconds costs at least `prefill_weight * p + alone_weight * alone_s +
    neighbour_weight * neighbour_s` (the latter the decode model's, times the answer's tokens), plus the wait
    until `ready_at`, no less than `least_wait_s`. Before `plain_until` and with room for it that is the cost.
    """

    __slots__ = (
        "_weights",
        "alone_weight",
        "is_known",
        "least_wait_s",
        "ledger",
        "neighbour_weight",
        "plain_until",
        "prefill_weight",
        "read_at",
        "ready_at",
        "replica",
        "room_tokens",
        "sent_before",
        "settled_at",
        "tokens",
        "used_tokens",
    )

    def __init__(
        self, replica: str, ledger: Ledger, weights: Weights, tokens: float, settled_at: float
    ) -> None:
        self.replica = replica
        self.ledger = ledger
        self.tokens = tokens
        self.settled_at = settled_at
        self.used_tokens: float | None = None
        """Of its memory, as last scraped."""
        self.read_at = 0.0
        self.sent_before = 0.0
        self.prefill_weight = self.alone_weight = self.neighbour_weight = self.room_tokens = 0.0
        self.ready_at, self.least_wait_s, self.plain_until = -inf, 0.0, inf
        self.is_known = False
        """It has a pace of its own; until then its price follows the others'."""
        self._weights = weights

    def price(self, answer_tokens: float, now: float) -> None:
        """Make it anew, after an event, a scrape, or when the pace of all others has moved."""
        ledger, weights = self.ledger, self._weights
        prefill, decode = ledger.prefill_pace, ledger.decode_pace
        self.prefill_weight = prefill.own * (1.0 + weights.own_work + weights.others * ledger.batch)
        self.alone_weight = weights.others * decode.own
        # A neighbour's share of a token's time is paid by each that is there, and for each.
        self.neighbour_weight = self.alone_weight * (2 * ledger.batch + 1)
        self.is_known = prefill.samples > 0 and decode.samples > 0
        self.room_tokens = _FULL * self.tokens - self._used_tokens(answer_tokens, now)
        self.ready_at, self.least_wait_s, self.plain_until = ledger.outlook()

    def read_load(self, replica: ReplicaView) -> bool:
        """Take a scrape in. True: it says of another size of memory than known."""
        load = replica.load
        self.read_at = replica.load_at
        self.sent_before = self.ledger.sent_tokens
        if load is None:
            return False
        resized = bool(load.kv_capacity_tokens) and load.kv_capacity_tokens != self.tokens
        if resized:
            self.tokens = load.kv_capacity_tokens or self.tokens
        ratio = load.kv_usage_ratio
        self.used_tokens = None if ratio is None else ratio * self.tokens
        return resized

    def memory_s(self, uncached: float, now: float) -> float:
        """Seconds until running requests have given back what this one needs."""
        over = uncached - self.room_tokens
        return over / max(self.ledger.released_per_s(now), 1.0) if over > 0 else 0.0

    def newness(self, now: float) -> float:
        """From 10 when it comes down to 1 when it has settled, as the time it has been there grows."""
        left_s = self.settled_at - now
        if left_s <= 0:
            return 1.0
        slow_start_s = self._weights.slow_start_s
        return slow_start_s / max(slow_start_s - left_s, _FIRST_SHARE * slow_start_s)

    def _used_tokens(self, answer_tokens: float, now: float) -> float:
        """Of the engine's memory, by requests that are there: as scraped, or by own count."""
        ledger = self.ledger
        if self.used_tokens is not None and now - self.read_at < self._weights.metrics_fresh_s:
            return self.used_tokens + ledger.sent_tokens - self.sent_before
        return ledger.tokens_held + ledger.batch * answer_tokens / 2
