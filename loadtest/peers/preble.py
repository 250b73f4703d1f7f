"""Preble's E2: exploit a cached prefix if it is most of the prompt, else explore the least loaded.

Source: Srivatsa et al., "Preble: Efficient Distributed Prompt Scheduling for LLM Serving", ICLR 2025, section
3; WukLab/preble, preble/global_scheduler_with_time.py.
"""

from collections import deque
from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Final

from loadtest.peers.facts import FleetFacts
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.outcome import Outcome
from policies.routing.events import Dispatched, Done, Event, Forgotten, Prompt
from policies.routing.pending_work import PendingWork
from policies.routing.policy import Policy, ReplicaView
from policies.routing.recent_blocks import RecentBlocks, tokens_of

_WINDOW_S: Final = 180.0
_TIMES_KEPT: Final = 200
_FIRST_S_PER_TOKEN: Final = 0.15
"""Decode time per token until one was measured."""
_OUTPUT_TOKENS: Final = 45
"""Length of an answer until one was seen."""
_MOST_IMBALANCE: Final = 1.5
_REBALANCES_FROM: Final = 50
"""Requests per replica before load is rebalanced at all."""


class Median:
    """Of the last 200 figures; kept, because it is asked for far more often than it changes."""

    def __init__(self, first: float) -> None:
        self.value = first
        self._figures = deque([first], maxlen=_TIMES_KEPT)

    def record(self, figure: float) -> None:
        self._figures.append(figure)
        self.value = median(self._figures)


class ReplicaLoad:
    """What a replica was given to prefill in the last three minutes, and how fast it decodes."""

    def __init__(self) -> None:
        self.s_per_token = Median(_FIRST_S_PER_TOKEN)
        self._prefills: deque[tuple[float, float]] = deque()
        self._prefill_s = 0.0

    def add(self, at: float, prefill_s: float) -> None:
        self._prefills.append((at, prefill_s))
        self._prefill_s += prefill_s

    def prefill_s(self, now: float) -> float:
        """Seconds of prefill given in the three minutes before `now`; what is older is dropped for good."""
        prefills = self._prefills
        while prefills and prefills[0][0] < now - _WINDOW_S:
            self._prefill_s -= prefills.popleft()[1]
        if not prefills:  # also ends whatever rounding has piled up
            self._prefill_s = 0.0
        return self._prefill_s


class E2(Rule):
    """Load is seconds of prefill in the window plus seconds of decoding that active requests have ahead."""

    def __init__(self, random: Random, facts: FleetFacts) -> None:
        super().__init__(random)
        self._facts = facts
        self._seen = RecentBlocks()
        self._active = PendingWork()
        self._loads: dict[str, ReplicaLoad] = {}
        self._output_tokens = Median(_OUTPUT_TOKENS)
        self._requests = 0

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:
        """Load in seconds; who may not be chosen stands behind who may."""
        loads = [self._load_s(replica.id, now) for replica in candidates]
        hits = self._seen.hits(prompt.blocks, ids_of(candidates))
        longest = max(hits)
        holders = [hit == longest for hit in hits]
        exploits = tokens_of(prompt, longest) > prompt.tokens / 2
        if not exploits or self._is_overloaded(loads, holders):
            return [(load, 0.0) for load in loads]
        return [
            (load if holds else max(loads) + 1.0 + load, 0.0)
            for load, holds in zip(loads, holders, strict=True)
        ]

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched(replica=replica, prompt=prompt) if prompt is not None:
                self._given(event, prompt)
            case Done(replica=replica, ticket=ticket, outcome=outcome):
                self._active.release(replica, ticket)
                if outcome is not None:
                    self._learn(replica, outcome)
            case Forgotten(replica=replica):
                self._active.forget(replica)
                self._seen.forget(replica)
                self._loads.pop(replica, None)
            case _:
                pass

    def _given(self, event: Dispatched, prompt: Prompt) -> None:
        replica = event.replica
        uncached = prompt.tokens - tokens_of(prompt, self._seen.hits(prompt.blocks, [replica])[0])
        self._load(replica).add(event.at, uncached / self._facts.prefill_tokens_per_s)
        self._active.add(replica, event.ticket, 1.0, event.at)
        self._seen.add(replica, prompt.blocks, self._facts.kv_capacity_tokens / prompt.block_tokens)
        self._requests += 1

    def _learn(self, replica: str, outcome: Outcome) -> None:
        tokens, first_at = outcome.completion_tokens, outcome.first_token_at
        if tokens is None or tokens < 2 or first_at is None:
            return
        self._output_tokens.record(tokens)
        self._load(replica).s_per_token.record((outcome.ended_at - first_at) / (tokens - 1))

    def _load(self, replica: str) -> ReplicaLoad:
        return self._loads.setdefault(replica, ReplicaLoad())

    def _load_s(self, replica: str, now: float) -> float:
        load = self._loads.get(replica)
        if load is None:
            return 0.0
        decode_s = self._active.total(replica) * self._output_tokens.value * load.s_per_token.value
        return load.prefill_s(now) + decode_s

    def _is_overloaded(self, loads: Sequence[float], holders: Sequence[bool]) -> bool:
        """Whether even the least loaded holder has too much more than the least loaded of all."""
        if self._requests < _REBALANCES_FROM * len(loads):
            return False
        least_holder = min(load for load, holds in zip(loads, holders, strict=True) if holds)
        return least_holder > _MOST_IMBALANCE * min(loads)


def e2(random: Random, facts: FleetFacts) -> Policy:
    """Helped by the fleet's prefill rate, where it has equations fitted for one model on one GPU.

    Liberties: load is counted by request, not by tree node and its miss rate; a prefix that overloads its
    holders sends the next request elsewhere, where Preble moves tree nodes until loads are within 1.5 of each
    other; evictions, which its servers report, are those of an LRU of their size.
    """
    return E2(random, facts)
