"""A greedy rule with perfect knowledge of the present: every replica's true cache and true queue.

No bound: it prices only what is there now, and the policies under test may know better by what they learned.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from loadtest.engine.latency import StepLoad
from loadtest.simulate.replica import VirtualReplica
from loadtest.simulate.sequence import VirtualSequence
from policies.routing.events import Event, Prompt
from policies.routing.policy import R, RequestFacts, Weighed

_NO_PROMPT: Final = Prompt((), 1, 1.0)
_OUTPUT_TOKENS: Final = 200.0
"""What an answer is taken for; nobody could know it."""


class Oracle:
    """Least (queued + own prefill seconds) + `decode_weight` x decode seconds that everybody there loses."""

    learns = False

    def __init__(self, random: Random, decode_weight: float = 0.5) -> None:
        self._random = random
        self._decode_weight = decode_weight
        self._replicas: Mapping[str, VirtualReplica] = {}

    def see(self, replicas: Mapping[str, VirtualReplica]) -> None:
        """Whose true state it may read."""
        self._replicas = replicas

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        prompt = request.prompt or _NO_PROMPT
        costs = [sum(self._terms(self._replicas[one.id], prompt).values()) for one in candidates]
        least = min(costs)
        return self._random.choice(
            [one for one, cost in zip(candidates, costs, strict=True) if cost <= least]
        )

    def weigh(
        self,
        request: RequestFacts,
        candidates: Sequence[R],
        now: float,  # noqa: ARG002
    ) -> Sequence[Weighed]:
        prompt = request.prompt or _NO_PROMPT
        terms = [self._terms(self._replicas[one.id], prompt) for one in candidates]
        return [
            Weighed(one.id, sum(of_one.values()), of_one)
            for one, of_one in zip(candidates, terms, strict=True)
        ]

    def observe(self, event: Event) -> None:
        """It looks instead."""

    def _terms(self, replica: VirtualReplica, prompt: Prompt) -> dict[str, float]:
        latency, slowdown = replica.hardware.latency, replica.slowdown
        own_s = slowdown * _prefill_s(replica, prompt.blocks, prompt.tokens)
        queue_s = slowdown * sum([_left_s(replica, *one) for one in replica.unfinished_prefills()])
        batch = len(replica.scheduler.running) + len(replica.scheduler.waiting)
        token_s = slowdown * (latency.decode_s + prompt.tokens * latency.context_token_s)
        step_s = slowdown * latency.step_s(replica.decode_load())
        decode_s = own_s * batch + _OUTPUT_TOKENS * (token_s * (batch + 1) + step_s)
        return {
            "queue_s": replica.step_left_s() + queue_s,
            "prefill_s": own_s,
            "decode_s": self._decode_weight * decode_s,
        }


def _prefill_s(replica: VirtualReplica, hashes: Sequence[int], tokens: int) -> float:
    known, loaded = replica.known(hashes, tokens)
    return _compute_s(replica, known, tokens, loaded)


def _left_s(replica: VirtualReplica, one: VirtualSequence, computed: int) -> float:
    if not computed:
        return _prefill_s(replica, one.hashes, one.length)
    return _compute_s(replica, computed, one.length, 0)


def _compute_s(replica: VirtualReplica, known: int, tokens: int, loaded: int) -> float:
    """Seconds of computing tokens `known` to `tokens` of one prompt."""
    uncached = max(1, tokens - known)
    pairs = uncached * (known + tokens + 1) // 2
    latency = replica.hardware.latency
    return latency.step_s(StepLoad(uncached, pairs, 0, 0, loaded)) - latency.base_s
