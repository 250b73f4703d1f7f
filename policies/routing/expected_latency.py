"""The default policy: where one more request costs the least, to itself and to those already there.

    cost = wait + prefill + memory + own_work * prefill + others * (stall + slowdown + decode)

`wait` is for what was sent there before and has no first token yet; `prefill` this prompt, less what the
mirror of that replica's cache holds; `memory` the time until the engine has room for it. `stall` is the
prefill as it holds up every request in the batch, `slowdown` what each token of its answer then costs each of
them, `decode` the answer itself. All in seconds, all learned from events; scraped figures only refine, and
only while they are fresh. For a while a newcomer counts as dearer than it is.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from policies.routing.account import Account, Cost, Weights
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
from policies.routing.expected_latency_options import ExpectedLatencyOptions
from policies.routing.knowledge import Knowledge, dumped, loaded
from policies.routing.ledger import Ledger, Models
from policies.routing.mirrors import NO_PROMPT, Mirrors
from policies.routing.policy import R, ReplicaView, RequestFacts, Weighed

_ANSWER_TOKENS: Final = 200
_ANSWER_WINDOW: Final = 200
_FADE_EVERY_S: Final = 10.0
_TIE: Final = 1e-9


class ExpectedLatency:
    """Least marginal cost over learned speeds and mirrored caches; equal costs go by chance.

    The same in every worker, as far as they tell each other what they do.
    """

    learns = True

    Options = ExpectedLatencyOptions

    def __init__(self, options: ExpectedLatencyOptions, random: Random) -> None:
        self._options = options
        self._random = random
        self._weights = Weights(
            options.others, options.own_work, options.metrics_fresh_s, options.slow_start_s
        )
        self._accounts: dict[str, Account] = {}
        # Candidates are the same from one request to the next, but for a few moments a day.
        self._candidates: list[ReplicaView] = []
        self._row: list[Account] = []
        self._models = Models(options.drift)
        self._means = (1.0, 1.0)
        self._faded_at = 0.0
        self._began = False
        self._mirrors = Mirrors(
            options.cache_tokens,
            options.offload_tokens,
            int(options.index_mb * 1e6),
            options.scope_share,
            options.cache_step,
        )
        self._answer_tokens = Average(_ANSWER_TOKENS, _ANSWER_WINDOW)

    # ---- deciding ----

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        prompt = request.prompt or NO_PROMPT
        row = self._row_of(candidates, now)
        hits = self._mirrors.hits(prompt)
        bounds = self._bounds(row, prompt, hits, now)
        nearest = bounds.index(min(bounds))
        least = self._exact(row[nearest], candidates[nearest], bounds[nearest], prompt, hits, now)
        chosen: list[R] = []
        for index in [index for index, bound in enumerate(bounds) if bound <= least + _TIE]:
            if bounds[index] > least + _TIE:
                continue
            replica = candidates[index]
            cost = self._exact(row[index], replica, bounds[index], prompt, hits, now)
            if cost < least - _TIE:
                least, chosen = cost, [replica]
            elif cost <= least + _TIE:
                chosen.append(replica)
        return chosen[0] if len(chosen) == 1 else chosen[self._random.randrange(len(chosen))]

    def _row_of(self, candidates: Sequence[R], now: float) -> list[Account]:
        """The candidates' accounts in their order, as priced at the last event of each."""
        if candidates != self._candidates:
            self._row = [
                self._accounts.get(replica.id) or self._meet(replica.id, replica.weight, now)
                for replica in candidates
            ]
            self._candidates = list(candidates)
        means = self._models.prefill_paces.mean, self._models.decode_paces.mean
        if means != self._means:
            self._means = means
            for account in self._accounts.values():
                if not account.is_known:
                    account.price(self._answer_tokens.value, now)
        return self._row

    def _bounds(
        self, row: Sequence[Account], prompt: Prompt, hits: Mapping[str, int], now: float
    ) -> list[float]:
        """No less than this is what the prompt costs on each; see `Account`."""
        prefill, decode = self._models.prefill, self._models.decode
        usual, answer = 1.0 / self._means[0], self._answer_tokens.value / self._means[1]
        own_s = {
            hit: usual * prefill.seconds(_uncached(prompt, hit), prompt.tokens) for hit in {0, *hits.values()}
        }
        alone_s, neighbour_s, hit_of = answer * decode.alone_s, answer * decode.neighbour_s, hits.get
        return [
            account.prefill_weight * own_s[hit_of(account.replica, 0)]
            + account.alone_weight * alone_s
            + account.neighbour_weight * neighbour_s
            + (max(account.ready_at - now, account.least_wait_s) if now < account.plain_until else 0.0)
            for account in row
        ]

    def _exact(
        self,
        account: Account,
        replica: ReplicaView,
        bound: float,
        prompt: Prompt,
        hits: Mapping[str, int],
        now: float,
    ) -> float:
        """The cost itself."""
        if account.read_at != replica.load_at:
            self._read_load(account, replica, now)
        uncached = _uncached(prompt, hits.get(account.replica, 0))
        cost = bound
        if now >= account.plain_until:
            cost += account.ledger.wait_s(now)
        if uncached > account.room_tokens:
            cost += account.memory_s(uncached, now)
        return cost if now >= account.settled_at else cost * account.newness(now)

    def weigh(self, request: RequestFacts, candidates: Sequence[R], now: float) -> Sequence[Weighed]:
        prompt = request.prompt or NO_PROMPT
        hits = self._mirrors.hits(prompt)
        weighed = []
        for replica, account in zip(candidates, self._row_of(candidates, now), strict=True):
            if account.read_at != replica.load_at:
                self._read_load(account, replica, now)
            terms = self._cost(account, prompt, hits.get(replica.id, 0), now)._asdict()
            weighed.append(Weighed(replica.id, terms.pop("total"), terms))
        return weighed

    def _cost(self, account: Account, prompt: Prompt, hit_blocks: int, now: float) -> Cost:
        """The same total as `choose` finds, term by term."""
        options, ledger = self._options, account.ledger
        uncached = _uncached(prompt, hit_blocks)
        prefill_s = ledger.prefill_s(uncached, prompt.tokens)
        stall_s, slowdown_s, decode_s = ledger.others_s(prefill_s, self._answer_tokens.value)
        wait_s, memory_s = ledger.wait_s(now), account.memory_s(uncached, now)
        own = wait_s + prefill_s + memory_s + options.own_work * prefill_s
        newness = account.newness(now)
        return Cost(
            wait_s=wait_s,
            prefill_s=prefill_s,
            memory_s=memory_s,
            stall_s=stall_s,
            slowdown_s=slowdown_s,
            decode_s=decode_s,
            hit_tokens=min(hit_blocks * prompt.block_tokens, prompt.tokens),
            uncached_tokens=uncached,
            batch=ledger.batch,
            pending=ledger.pending,
            newness=newness,
            total=newness * (own + options.others * (stall_s + slowdown_s + decode_s)),
        )

    def _read_load(self, account: Account, replica: ReplicaView, now: float) -> None:
        if account.read_load(replica):
            self._mirrors.set_size(replica.id, account.tokens)
        account.price(self._answer_tokens.value, now)

    # ---- learning ----

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched():
                self._dispatched(event)
            case FirstToken():
                account = self._accounts.get(event.replica)
                if account is not None:
                    account.ledger.first_token(event)
                    account.price(self._answer_tokens.value, event.at)
            case Done():
                self._done(event)
            case Forgotten():
                self._forget(event.replica)
            case CacheLost():
                self._mirrors.forget(event.replica)
            case BlocksStored():
                size = event.block_tokens or self._mirrors.block_tokens
                self._mirrors.store(event.replica, Prompt(event.blocks, 0, size))
            case BlocksRemoved():
                self._mirrors.remove(event.replica, event.blocks)

    def _dispatched(self, event: Dispatched) -> None:
        account = self._accounts.get(event.replica) or self._meet(event.replica, 1.0, event.at)
        self._began = True
        if event.at - self._faded_at >= _FADE_EVERY_S:
            self._fade(event.at)
        prompt = event.prompt or NO_PROMPT
        hit = min(self._mirrors.hits(prompt).get(event.replica, 0) * prompt.block_tokens, prompt.tokens)
        account.ledger.dispatched(event, prompt.tokens, hit)
        self._mirrors.store(event.replica, prompt)
        account.price(self._answer_tokens.value, event.at)

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
                self._mirrors.compare(event.replica, work.hit_tokens, outcome.cached_tokens)
            elif work.seems_cold is not None:
                self._mirrors.suspect(event.replica, work.hit_tokens, cold=work.seems_cold)
        if event.answer is not None:
            self._mirrors.store(event.replica, event.answer)
        account.price(self._answer_tokens.value, event.at)

    def _fade(self, now: float) -> None:
        """Those that nothing was heard of are given another chance."""
        self._faded_at = now
        for account in self._accounts.values():
            if account.ledger.fade(now):
                account.price(self._answer_tokens.value, now)

    def _forget(self, replica: str) -> None:
        """A new life: nothing is there, nothing is cached, and its speed may be another."""
        account = self._accounts.pop(replica, None)
        self._candidates = []
        if account is not None:
            account.ledger.leave()
        self._mirrors.forget(replica)

    # ---- what others read ----

    @property
    def predicted_tokens(self) -> float:
        """Cached tokens that were expected, of all answers whose engine said how many there were."""
        return self._mirrors.predicted_tokens

    @property
    def reported_tokens(self) -> float:
        """Cached tokens that the engines then reported."""
        return self._mirrors.reported_tokens

    def dump(self) -> bytes:
        """What a worker that joins would else have to learn: mirrors, and what things cost."""
        prefill, decode = self._models.prefill.coefficients, self._models.decode.coefficients
        mirrors, answer = self._mirrors.dump(), self._answer_tokens.value
        return dumped(Knowledge(self._mirrors.block_tokens, answer, prefill, decode, mirrors))

    def load(self, state: bytes) -> None:
        """Take over another's knowledge, beside what is known here. Raises `ValueError` for no dump."""
        known = loaded(state)
        self._models.prefill.adopt(known.prefill)
        self._models.decode.adopt(known.decode)
        if not self._began:
            self._answer_tokens.value = known.answer_tokens
        self._mirrors.load(known.mirrors, known.block_tokens)

    # ---- inside ----

    def _meet(self, replica: str, weight: float, now: float) -> Account:
        """A replica that nothing is known of is taken to be like the others, at its weight."""
        options = self._options
        ledger = Ledger(self._models, 1 / weight, now)
        # Whoever is met first of all is no newcomer: there is nobody else.
        settled_at = now + options.slow_start_s if self._began else 0.0
        account = Account(replica, ledger, self._weights, options.cache_tokens, settled_at)
        account.price(self._answer_tokens.value, now)
        self._accounts[replica] = account
        return account


def _uncached(prompt: Prompt, hit_blocks: int) -> float:
    """Tokens that are left to compute; at least one, to sample from."""
    return max(prompt.tokens - hit_blocks * prompt.block_tokens, 1.0)
