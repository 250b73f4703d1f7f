"""The rules of other routers, each from its own source, with its published defaults.

They are ports, not the programs: see each docstring for the source and for what was simplified, always in the
peer's favour. Ratios against the real binaries may differ either way.
"""

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from random import Random
from statistics import fmean

from loadtest.peers.book import NO_PROMPT, Flight, Peer
from policies.routing.events import Dispatched, Done, Event, Forgotten, Prompt
from policies.routing.policy import R, RequestFacts


class LMetric(Peer):
    """LMetric (arXiv 2603.15202): pending and new uncached tokens times the batch it would join."""

    def cost(self, replica: R, prompt: Prompt, hit: float, now: float) -> float:  # noqa: ARG002
        account = self.account(replica.id)
        return (account.pending_uncached_tokens + prompt.tokens - hit) * (account.batch + 1)


class Gorgo(Peer):
    """GORGO: uncached tokens and queued prompt tokens, equal weights, released at the first token."""

    def cost(self, replica: R, prompt: Prompt, hit: float, now: float) -> float:  # noqa: ARG002
        return prompt.tokens - hit + self.account(replica.id).pending_prompt_tokens


class MooncakeConductor(Peer):
    """Mooncake's conductor (FAST'25, algorithm 1): least queued and own prefill; no transfer of KV."""

    def cost(self, replica: R, prompt: Prompt, hit: float, now: float) -> float:  # noqa: ARG002
        return self.account(replica.id).pending_uncached_tokens + prompt.tokens - hit


class LlmDDefault(Peer):
    """llm-d's and the gateway API's default profile: prefix 3, queue 2, KV utilisation 2, highest score.

    Each scorer gives 0 to 1: the share of the prompt that is cached, how short the queue is among the
    candidates' (from the scraped waiting counts), how much of the KV cache is free. Its index is sized to the
    engines, as its automatic configuration does.
    """

    def cost(self, replica: R, prompt: Prompt, hit: float, now: float) -> float:  # noqa: ARG002
        usage = None if replica.load is None else replica.load.kv_usage_ratio
        return -(
            3 * hit / max(1, prompt.tokens) + 2 * self._queue_scores[replica.id] + 2 * (1 - (usage or 0.0))
        )

    def _costs(self, prompt: Prompt, candidates: Sequence[R], now: float) -> list[float]:
        waiting = {r.id: (r.load.waiting_requests or 0.0) if r.load else 0.0 for r in candidates}
        least, most = min(waiting.values()), max(waiting.values())
        self._queue_scores = {
            name: 1.0 if most == least else (most - count) / (most - least) for name, count in waiting.items()
        }
        return super()._costs(prompt, candidates, now)


class LlmDAffinity(Peer):
    """llm-d's prefix-affinity filter with its token-load scorer.

    Replicas that hold at least 0.8 of the prompt go before the others, unless the best of them is estimated
    to start 18 s later; among those left, the fewest tokens in flight. Waits are estimated at llm-d's default
    peak of 15,928 prefill tokens/s.
    """

    _SHARE = 0.8
    _GATE_S = 18.0
    _TOKENS_PER_S = 15_928

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        prompt = request.prompt or NO_PROMPT
        hits = self.hits(prompt)
        loads = {r.id: self.account(r.id).pending_uncached_tokens + self._running(r.id) for r in candidates}
        waits = {r.id: self.account(r.id).pending_uncached_tokens / self._TOKENS_PER_S for r in candidates}
        holders = [r for r in candidates if hits.get(r.id, 0.0) >= self._SHARE * prompt.tokens]
        if holders and min(waits[r.id] for r in holders) - min(waits.values()) > self._GATE_S:
            holders = []
        left = holders or list(candidates)
        least = min(loads[r.id] for r in left)
        return self.one_of([r for r in left if loads[r.id] == least])

    def _running(self, replica: str) -> float:
        return sum(flight.prompt.tokens for flight in self.account(replica).flights.values()) / 100


class Dynamo(Peer):
    """NVIDIA Dynamo's KV router: prefill blocks to compute and blocks in use, least cost, temperature 0.

    cost = overlap_weight * (pending prefill + own uncached tokens) / 16 + distinct active blocks with this
    prompt; both in blocks of 16 tokens. Its index follows the engines' KV events.
    """

    wants_kv_events = True
    _BLOCK = 16

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._active: dict[str, Counter[int]] = {}

    def cost(self, replica: R, prompt: Prompt, hit: float, now: float) -> float:  # noqa: ARG002
        active = self._active.get(replica.id, Counter())
        prefill = (self.account(replica.id).pending_uncached_tokens + prompt.tokens - hit) / self._BLOCK
        blocks = len(active) + sum(block not in active for block in prompt.blocks)
        return prefill + blocks * prompt.block_tokens / self._BLOCK

    def observe(self, event: Event) -> None:
        if isinstance(event, Dispatched):
            self._active.setdefault(event.replica, Counter()).update((event.prompt or NO_PROMPT).blocks)
        elif isinstance(event, Done):
            self._release(event.replica, self.account(event.replica).flights.get(event.ticket))
        elif isinstance(event, Forgotten):
            self._active.pop(event.replica, None)
        super().observe(event)

    def _release(self, replica: str, flight: Flight | None) -> None:
        active = self._active.get(replica)
        for block in flight.prompt.blocks if flight and active else ():
            assert active is not None
            active[block] -= 1
            if active[block] <= 0:
                del active[block]


class Preble(Peer):
    """Preble's E2 (ICLR'25, section 3): exploit a cached prefix that is more than half, else explore.

    Among the holders of the longest prefix, or all replicas, the least load over the last three minutes, in
    seconds of prefill and decode; a replica loaded 1.5 times the least is relieved by redirection (the paper
    moves tree nodes).
    """

    _WINDOW_S = 180.0
    _PREFILL_TOKEN_S = 1 / 32_000
    _DECODE_TOKEN_S = 1 / 1_500
    _REBALANCE = 1.5

    def __init__(self, random: Random, cache_tokens: float = 0) -> None:
        super().__init__(random, cache_tokens)
        self._history: dict[str, list[tuple[float, float]]] = {}
        self._output_tokens = 200.0

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        prompt = request.prompt or NO_PROMPT
        hits = self.hits(prompt)
        loads = {r.id: self._load(r.id, now) for r in candidates}
        costs = {
            r.id: loads[r.id] + (prompt.tokens - hits.get(r.id, 0.0)) * self._PREFILL_TOKEN_S
            for r in candidates
        }
        longest = max(hits.values(), default=0.0)
        pool = list(candidates)
        if 2 * longest > prompt.tokens:
            pool = [r for r in candidates if hits.get(r.id, 0.0) == longest] or pool
        best = min(pool, key=lambda r: costs[r.id])
        if loads[best.id] > self._REBALANCE * min(loads.values()) + 1.0:
            best = min(candidates, key=lambda r: costs[r.id])
        return best

    def observe(self, event: Event) -> None:
        if isinstance(event, Dispatched):
            prompt = event.prompt or NO_PROMPT
            uncached = prompt.tokens - self.hits(prompt).get(event.replica, 0.0)
            seconds = uncached * self._PREFILL_TOKEN_S + self._output_tokens * self._DECODE_TOKEN_S
            self._history.setdefault(event.replica, []).append((event.at, seconds))
        elif isinstance(event, Done) and event.outcome and event.outcome.completion_tokens:
            self._output_tokens += 0.01 * (event.outcome.completion_tokens - self._output_tokens)
        super().observe(event)

    def _load(self, replica: str, now: float) -> float:
        history = self._history.get(replica, [])
        while history and history[0][0] < now - self._WINDOW_S:
            history.pop(0)
        return sum(seconds for _, seconds in history)


class AIBrix(Peer):
    """AIBrix's prefix-cache policy (`prefix_cache.go`): even out when loads part by more than 8.

    Else, among replicas whose load is at most mean + 1 standard deviation, the best match, fewest requests
    where equal; without one, the fewest requests.
    """

    _SPREAD = 8

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        loads = [replica.in_flight for replica in candidates]
        if max(loads) - min(loads) <= self._SPREAD:
            mean = fmean(loads)
            bound = mean + sqrt(fmean([(load - mean) ** 2 for load in loads]))
            hits = self.hits(request.prompt or NO_PROMPT)
            holders = [r for r in candidates if hits.get(r.id, 0.0) and r.in_flight <= bound]
            if holders:
                return max(holders, key=lambda r: (hits[r.id], -r.in_flight))
        least = min(loads)
        return self.one_of([replica for replica in candidates if replica.in_flight == least])


class PrefixHash(Peer):
    """Consistent hashing with bounded load: by session, or by the first blocks where there is none.

    Mirrokni, Thorup and Zadimoghaddam, 2018; load factor 1.25, as most gateways that offer it.
    """

    _FACTOR = 1.25
    _BLOCKS = 4

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        prompt = request.prompt or NO_PROMPT
        key = request.session or (prompt.blocks[: self._BLOCKS][-1] if prompt.blocks else prompt.tokens)
        bound = self._FACTOR * (1 + sum(replica.in_flight for replica in candidates)) / len(candidates)
        order = sorted(candidates, key=lambda replica: hash((str(key), replica.id)))
        return next((replica for replica in order if replica.in_flight + 1 <= bound), order[0])
