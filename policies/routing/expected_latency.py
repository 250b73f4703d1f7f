"""The default policy: where one more request costs the least, to itself and to those already there.

    cost = wait + prefill + memory + own_work * prefill + others * (stall + slowdown + decode)

`wait` is for what was sent there before and has no first token yet; `prefill` this prompt, less what the
mirror of that replica's cache holds; `memory` the time until the engine has room for it. `stall` is the
prefill as it holds up every request in the batch, `slowdown` what each token of its answer then costs each of
them, `decode` the answer itself. All in seconds, all learned from events; scraped figures only refine, and
only while they are fresh. For a while a newcomer counts as dearer than it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Final, NamedTuple

from policies.routing.cost_model import Average
from policies.routing.events import (
    BlocksRemoved,
    BlocksStored,
    CacheLost,
    Dispatched,
    Done,
    Event,
    FirstToken,
    Forgotten,
    Prompt,
)
from policies.routing.ledger import Ledger, Models, Truth
from policies.routing.policy import R, ReplicaView, RequestFacts, Weighed
from policies.routing.prefix_index import PrefixIndex, blocks_within

_NO_PROMPT: Final = Prompt((), 0, 1)
_ANSWER_TOKENS: Final = 200
_ANSWER_WINDOW: Final = 200
_FULL: Final = 0.97
"""How much of its memory an engine fills before requests wait."""
_FINER: Final = 0.5
"""Blocks below this part of the usual size are of another kind, not of a text with shorter words."""
_TIE: Final = 1e-9
_FIRST_SHARE: Final = 0.1


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


class ExpectedLatency:
    """Least marginal cost over learned speeds and mirrored caches; equal costs go by chance.

    The same in every worker, as far as they tell each other what they do.
    """

    learns = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        others: float = field(
            default=0.5,
            metadata={
                "advice": "Weight of what a request costs others; 0.1 if only the first token counts, 1 for "
                "even streams."
            },
        )
        own_work: float = field(
            default=0.0,
            metadata={"advice": "Extra weight of the request's own prefill; raise it to hit caches more."},
        )
        cache_tokens: float = field(
            default=400_000,
            metadata={"advice": "Tokens a replica's cache holds, until its metrics say; too large is safer."},
        )
        offload_tokens: float = field(
            default=0,
            metadata={"advice": "Tokens that host memory holds behind each cache (LMCache, HiCache)."},
        )
        cache_step: float = field(
            default=0.02,
            metadata={"advice": "How fast a mirror's size follows the cached tokens reported; 0 is never."},
        )
        index_mb: float = field(
            default=256.0,
            metadata={"advice": "Memory for all mirrors of one version in one process, in MB."},
        )
        scope_share: float = field(
            default=1.0,
            metadata={
                "advice": "Most of a mirror that one tenant may fill; below 1 where tenants are hostile."
            },
        )
        metrics_fresh_s: float = field(
            default=10.0,
            metadata={"advice": "Age at which scraped figures are no longer believed, in seconds."},
        )
        slow_start_s: float = field(
            default=5.0,
            metadata={
                "advice": "How long a replica that came or was restarted takes load slowly, in seconds."
            },
        )
        drift: float = field(
            default=1e-5,
            metadata={
                "advice": "How fast learned speeds follow change; 1e-4 where speeds vary by the minute."
            },
        )

        def __post_init__(self) -> None:
            for name in ("others", "own_work", "cache_step", "offload_tokens", "slow_start_s", "drift"):
                if not 0 <= getattr(self, name) < inf:
                    raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
            for name in ("cache_tokens", "index_mb", "metrics_fresh_s"):
                if not 0 < getattr(self, name) < inf:
                    raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")
            if not 0 < self.scope_share <= 1:
                raise ValueError(f"scope_share must be more than 0 and at most 1, got {self.scope_share}")

    def __init__(self, options: Options, random: Random) -> None:
        self._options = options
        self._random = random
        self._accounts: dict[str, _Account] = {}
        self._models = Models(options.drift)
        self._index: PrefixIndex | None = None
        self._block_tokens = 128.0
        self._began = False
        self.predicted_tokens = 0.0
        self.reported_tokens = 0.0
        """Cached tokens, of all answers whose engine said how many there were."""
        self._answer_tokens = Average(_ANSWER_TOKENS, _ANSWER_WINDOW)
        # The walk along a prompt serves the choice and the event that follows it.
        self._walked: tuple[Prompt, Mapping[str, int]] = (_NO_PROMPT, {})

    # ---- deciding ----

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        prompt = request.prompt or _NO_PROMPT
        hits = self._hits(prompt)
        tokens, block_tokens = prompt.tokens, prompt.block_tokens
        prefill, decode, answer = self._models.prefill, self._models.decode, self._answer_tokens.value
        usual = 1.0 / self._models.prefill_paces.mean
        base_s, token_s, pair_s = prefill.base_s * usual, prefill.token_s * usual, prefill.pair_s * usual
        usual = answer / self._models.decode_paces.mean
        alone_s, neighbour_s = decode.alone_s * usual, decode.neighbour_s * usual
        least = inf
        chosen: list[R] = []
        accounts = self._accounts
        for replica in candidates:
            account = accounts.get(replica.id)
            if account is None or account.read_at != replica.load_at or not account.is_known:
                account = self._account(replica, now)
            hit = hits.get(replica.id)
            uncached = tokens if hit is None else max(tokens - hit * block_tokens, 1.0)
            own_s = base_s + uncached * (token_s + pair_s * (tokens - uncached / 2))
            total = account.prefill_weight * own_s
            total += account.decode_weight * (alone_s + neighbour_s * account.neighbours)
            if account.ledger.pending:
                total += account.ledger.wait_s(now)
            if uncached > account.room_tokens:
                total += self._memory_s(account, uncached, now)
            if now < account.settled_at:
                total *= self._newness(account, now)
            if total < least - _TIE:
                least, chosen = total, [replica]
            elif total <= least + _TIE:
                chosen.append(replica)
        return chosen[0] if len(chosen) == 1 else chosen[self._random.randrange(len(chosen))]

    def weigh(self, request: RequestFacts, candidates: Sequence[R], now: float) -> Sequence[Weighed]:
        prompt = request.prompt or _NO_PROMPT
        hits = self._hits(prompt)
        weighed = []
        for replica in candidates:
            terms = self._cost(self._account(replica, now), prompt, hits.get(replica.id, 0), now)._asdict()
            weighed.append(Weighed(replica.id, terms.pop("total"), terms))
        return weighed

    def _cost(self, account: "_Account", prompt: Prompt, hit_blocks: int, now: float) -> Cost:
        """The same total as `choose` finds, term by term."""
        options, ledger = self._options, account.ledger
        hit = min(hit_blocks * prompt.block_tokens, prompt.tokens)
        uncached = max(prompt.tokens - hit, 1.0)
        prefill_s = ledger.prefill_s(uncached, prompt.tokens)
        stall_s, slowdown_s, decode_s = self._others(ledger, prefill_s)
        wait_s, memory_s = ledger.wait_s(now), self._memory_s(account, uncached, now)
        own = wait_s + prefill_s + memory_s + options.own_work * prefill_s
        newness = self._newness(account, now)
        return Cost(
            wait_s=wait_s,
            prefill_s=prefill_s,
            memory_s=memory_s,
            stall_s=stall_s,
            slowdown_s=slowdown_s,
            decode_s=decode_s,
            hit_tokens=hit,
            uncached_tokens=uncached,
            batch=ledger.batch,
            pending=ledger.pending,
            newness=newness,
            total=newness * (own + options.others * (stall_s + slowdown_s + decode_s)),
        )

    def _others(self, ledger: Ledger, prefill_s: float) -> tuple[float, float, float]:
        """What the batch pays for one more: stall, slowdown, and that one's own decode, seconds."""
        batch, answer = ledger.batch, self._answer_tokens.value
        return (
            prefill_s * batch,
            answer * (ledger.decode_s(batch + 1) - ledger.decode_s(batch)) * batch,
            answer * ledger.decode_s(batch + 1),
        )

    def _account(self, replica: ReplicaView, now: float) -> "_Account":
        """The replica's account, with its price as of the last event and its last scrape read."""
        account = self._accounts.get(replica.id) or self._meet(replica.id, replica.weight, now)
        if account.read_at != replica.load_at:
            self._read_load(account, replica)
            self._price(account, now)
        elif not account.is_known:
            self._price(account, now)
        return account

    def _price(self, account: "_Account", now: float) -> None:
        """What the models' seconds are multiplied by here, and the room that is left."""
        ledger, options = account.ledger, self._options
        weight = 1.0 + options.own_work + options.others * ledger.batch
        prefill, decode = ledger.prefill_pace, ledger.decode_pace
        account.prefill_weight = prefill.own * weight
        account.decode_weight = options.others * decode.own
        account.is_known = prefill.samples > 0 and decode.samples > 0
        account.neighbours = 2 * ledger.batch + 1
        account.room_tokens = _FULL * account.tokens - self._used_tokens(account, now)

    def _used_tokens(self, account: "_Account", now: float) -> float:
        """Of the engine's memory, by requests that are there: as scraped, or by own count."""
        ledger = account.ledger
        if account.used_tokens is not None and now - account.read_at < self._options.metrics_fresh_s:
            return account.used_tokens + ledger.sent_tokens - account.sent_before
        return ledger.tokens_held + ledger.batch * self._answer_tokens.value / 2

    def _memory_s(self, account: "_Account", uncached: float, now: float) -> float:
        """Seconds until running requests have given back what this one needs."""
        over = uncached - account.room_tokens
        return over / max(account.ledger.released_per_s(now), 1.0) if over > 0 else 0.0

    def _newness(self, account: "_Account", now: float) -> float:
        """From 10 when it comes down to 1 when it has settled, as the time it has been there grows."""
        left_s = account.settled_at - now
        if left_s <= 0:
            return 1.0
        slow_start_s = self._options.slow_start_s
        return slow_start_s / max(slow_start_s - left_s, _FIRST_SHARE * slow_start_s)

    def _read_load(self, account: "_Account", replica: ReplicaView) -> None:
        load = replica.load
        account.read_at = replica.load_at
        account.sent_before = account.ledger.sent_tokens
        if load is None:
            return
        if load.kv_capacity_tokens and load.kv_capacity_tokens != account.tokens:
            account.tokens = load.kv_capacity_tokens
            self._resize(replica.id, account)
        ratio = load.kv_usage_ratio
        account.used_tokens = None if ratio is None else ratio * account.tokens

    # ---- learning ----

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched():
                self._dispatched(event)
            case FirstToken():
                account = self._accounts.get(event.replica)
                if account is not None:
                    account.ledger.first_token(event)
                    self._price(account, event.at)
            case Done():
                self._done(event)
            case Forgotten():
                self._forget(event.replica)
            case CacheLost():
                self._lose_cache(event.replica)
            case BlocksStored():
                self._store(event.replica, Prompt(event.blocks, 0, event.block_tokens or self._block_tokens))
            case BlocksRemoved():
                self._remove(event)

    def _dispatched(self, event: Dispatched) -> None:
        account = self._accounts.get(event.replica) or self._meet(event.replica, 1.0, event.at)
        self._began = True
        prompt = event.prompt or _NO_PROMPT
        hit = min(self._hits(prompt).get(event.replica, 0) * prompt.block_tokens, prompt.tokens)
        account.ledger.dispatched(event, prompt.tokens, hit)
        self._store(event.replica, prompt)
        self._price(account, event.at)

    def _done(self, event: Done) -> None:
        account = self._accounts.get(event.replica)
        work = None if account is None else account.ledger.done(event)
        if account is None or work is None:
            return
        outcome = event.outcome
        if outcome is not None:
            if outcome.completion_tokens is not None:
                self._answer_tokens.add(outcome.completion_tokens)
            if outcome.cached_tokens is not None:
                self._compare(event.replica, account, work.hit_tokens, outcome.cached_tokens)
        if event.answer is not None:
            self._store(event.replica, event.answer)
        self._price(account, event.at)

    def _compare(self, replica: str, account: "_Account", predicted: float, reported: float) -> None:
        self.predicted_tokens += predicted
        self.reported_tokens += reported
        if account.truth.compare(predicted, reported, self._block_tokens):
            self._forget_cache(replica, account)
        else:
            self._resize(replica, account)

    def _forget(self, replica: str) -> None:
        """A new life: nothing is there, nothing is cached, and its speed may be another."""
        account = self._accounts.pop(replica, None)
        if account is not None:
            account.ledger.leave()
            self._forget_cache(replica, account)

    def _lose_cache(self, replica: str) -> None:
        account = self._accounts.get(replica)
        if account is not None:
            self._forget_cache(replica, account)

    def _forget_cache(self, replica: str, account: "_Account") -> None:
        self._walked = (_NO_PROMPT, {})
        if self._index is not None:
            self._index.forget(replica)
            self._resize(replica, account)

    # ---- mirrors ----

    def _hits(self, prompt: Prompt) -> Mapping[str, int]:
        if self._walked[0] is not prompt:
            self._walked = prompt, {} if self._index is None else self._index.match(prompt.blocks)
        return self._walked[1]

    def _store(self, replica: str, prompt: Prompt) -> None:
        if not prompt.blocks:
            return
        index = self._index or self._make_index(prompt.block_tokens)
        if prompt.block_tokens < _FINER * self._block_tokens:
            self._refine(prompt.block_tokens)
        index.insert(replica, prompt.blocks)
        self._walked = (_NO_PROMPT, {})

    def _remove(self, event: BlocksRemoved) -> None:
        if self._index is not None:
            self._index.remove(event.replica, event.blocks)
            self._walked = (_NO_PROMPT, {})

    def _make_index(self, block_tokens: float) -> PrefixIndex:
        options = self._options
        self._block_tokens = block_tokens
        capacity = max(1, int((options.cache_tokens + options.offload_tokens) / block_tokens))
        bound = blocks_within(int(options.index_mb * 1e6))
        self._index = PrefixIndex(bound, capacity, options.scope_share)
        for replica, account in self._accounts.items():
            self._resize(replica, account)
        return self._index

    def _refine(self, block_tokens: float) -> None:
        """Prompts come in smaller blocks than thought, of token ids, not of text: mirrors hold more."""
        self._block_tokens = block_tokens
        for replica, account in self._accounts.items():
            self._resize(replica, account)

    def _resize(self, replica: str, account: "_Account") -> None:
        if self._index is not None:
            tokens = account.tokens + self._options.offload_tokens
            blocks = int(tokens * account.truth.factor / self._block_tokens)
            if blocks != self._index.capacity_of(replica):
                self._index.resize(replica, blocks)

    def _meet(self, replica: str, weight: float, now: float) -> "_Account":
        """A replica that nothing is known of is taken to be like the others, at its weight."""
        options = self._options
        ledger = Ledger(self._models, 1 / weight, now)
        account = _Account(ledger, Truth(options.cache_step), options.cache_tokens)
        # Whoever is met first of all is no newcomer: there is nobody else.
        account.settled_at = now + options.slow_start_s if self._began else 0.0
        self._accounts[replica] = account
        self._resize(replica, account)
        self._price(account, now)
        return account


class _Account:
    """One replica: its ledger, its memory as last scraped, and its price as of the last event."""

    __slots__ = (
        "decode_weight",
        "is_known",
        "ledger",
        "neighbours",
        "prefill_weight",
        "read_at",
        "room_tokens",
        "sent_before",
        "settled_at",
        "tokens",
        "truth",
        "used_tokens",
    )

    def __init__(self, ledger: Ledger, truth: Truth, tokens: float) -> None:
        self.ledger = ledger
        self.truth = truth
        self.settled_at = 0.0
        self.tokens = tokens
        """What its memory holds."""
        self.used_tokens: float | None = None
        self.read_at = 0.0
        self.sent_before = 0.0
        self.prefill_weight = self.decode_weight = self.room_tokens = 0.0
        self.is_known = False
        """It has a pace of its own; until then it follows the others'."""
        self.neighbours = 0
        """How often a neighbour's share of a token's time is paid: by each that is there, and for each."""
