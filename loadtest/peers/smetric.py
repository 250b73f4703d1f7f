"""vllm-router's SMetric: the session's replica while it meets the TTFT target, else the least prefill work.

Source: vllm-project/router, src/policies/smetric.rs.
"""

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Final

from loadtest.peers.facts import FleetFacts
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.routing.events import Dispatched, Done, Event, FirstToken, Forgotten, Prompt
from policies.routing.pending_work import Given, PendingWork
from policies.routing.policy import Policy, ReplicaView
from policies.routing.recent_blocks import RecentBlocks, tokens_of

_HIT_RATIO: Final = 0.5
_TTFT_S: Final = 1.0
_TTFT_S_PER_TOKEN: Final = 0.0625 / 1000
"""With the two before: the defaults of its SMetricConfig, slack 1."""
_TREE_TOKENS: Final = (1 << 26) / 4
_RATE_WINDOW: Final = 64
_RATE_MIN_SAMPLES: Final = 8
_RATE_QUANTILE: Final = 0.9


class PrefillRate:
    """A replica's prefill rate, tokens per second: the 90th percentile of the last 64, from 8 on."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._samples: deque[float] = deque(maxlen=_RATE_WINDOW)

    def record(self, rate: float) -> None:
        self._samples.append(rate)
        if len(self._samples) >= _RATE_MIN_SAMPLES:
            self.value = sorted(self._samples)[round((len(self._samples) - 1) * _RATE_QUANTILE)]


class SMetric(Rule):
    """Work is uncached tokens; it waits until the first token, which also teaches the replica's rate."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._seen = RecentBlocks()
        self._pending = PendingWork()
        self._rates: dict[str, PrefillRate] = {}

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:  # noqa: ARG002
        """Uncached tokens if affinity holds, else work queued with this one's, times requests in flight."""
        hits = self._seen.hits(prompt.blocks, ids_of(candidates))
        uncached = [prompt.tokens - tokens_of(prompt, hit) for hit in hits]
        queued = [
            self._pending.total(replica.id) + own for replica, own in zip(candidates, uncached, strict=True)
        ]
        meets = [
            self._meets(replica.id, work, prompt) for replica, work in zip(candidates, queued, strict=True)
        ]
        _, _, holder = min(zip(uncached, queued, range(len(hits)), strict=True))
        is_held = tokens_of(prompt, hits[holder]) > _HIT_RATIO * prompt.tokens
        if is_held and (meets[holder] or not any(meets)):
            return list(zip(uncached, queued, strict=True))
        return [(work * replica.in_flight, 0.0) for replica, work in zip(candidates, queued, strict=True)]

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched(replica=replica, prompt=prompt) if prompt is not None:
                hit = self._seen.hits(prompt.blocks, [replica])[0]
                self._pending.add(replica, event.ticket, prompt.tokens - tokens_of(prompt, hit), event.at)
                self._seen.add(replica, prompt.blocks, _TREE_TOKENS / prompt.block_tokens)
            case FirstToken(replica=replica, ticket=ticket, at=at):
                self._learn(replica, self._pending.release(replica, ticket), at)
            case Done(replica=replica, ticket=ticket):
                self._pending.release(replica, ticket)
            case Forgotten(replica=replica):
                self._pending.forget(replica)
                self._seen.forget(replica)
                self._rates.pop(replica, None)
            case _:
                pass

    def _learn(self, replica: str, given: Given | None, at: float) -> None:
        if given is not None and given.amount > 0.0 and at > given.at:
            self._rates.setdefault(replica, PrefillRate()).record(given.amount / (at - given.at))

    def _meets(self, replica: str, work: float, prompt: Prompt) -> bool:
        """Whether the replica would answer in time; one whose rate is not known would."""
        rate = self._rates.get(replica)
        if rate is None or rate.value is None:
            return True
        return work / rate.value <= _TTFT_S + _TTFT_S_PER_TOKEN * prompt.tokens


def smetric(random: Random, _facts: FleetFacts) -> Policy:
    """Its mode for replicas that prefill and decode; prefill is priced by new tokens alone, as by default.

    Liberties: its gate on later turns of a session, which needs the messages, is the hit ratio of the whole
    prompt; of equal hits the least queued; ties by chance, not in turn.
    """
    return SMetric(random)
