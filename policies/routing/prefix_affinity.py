"""A prompt goes where most of it was seen before, if that is enough of it and the load is even.

The rule that vllm-router, SGLang's router and SMG call cache_aware, with the names of their options, so that
settings move over. Theirs index characters, this one blocks of tokens (a token is about four characters); it
evicts at once, where theirs sweep at an interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

from policies.routing.events import CacheLost, Dispatched, Event, Forgotten
from policies.routing.least import least
from policies.routing.policy import R, ReplicaView, RequestFacts, Weighed
from policies.routing.recent_blocks import RecentBlocks, tokens_of

_CHARACTERS_PER_TOKEN: Final = 4


class PrefixAffinity:
    """Load is requests in flight for the weight; ties go to the least loaded, then by chance.

    While load is uneven, the least loaded. Else who has seen most of the prompt, if that is more than
    `cache_threshold` of it. Else what `on_miss` says; without a prompt the least loaded.
    """

    learns = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """vllm-router's command line and SMG have 0.3, 64, 1.5; SGLang had 0.5, 32, 1.0001, smallest_tree."""

        cache_threshold: float = field(
            default=0.5,
            metadata={"advice": "Share of a prompt, 0 to 1; who has seen more of it gets it. SMG: 0.3."},
        )
        balance_abs_threshold: float = field(
            default=32.0,
            metadata={
                "advice": "Affinity yields if a replica has more than this many above another. SMG: 64."
            },
        )
        balance_rel_threshold: float = field(
            default=1.1,
            metadata={"advice": "Affinity yields only if it has this many times the other's, too. SMG: 1.5."},
        )
        on_miss: Literal["least_requests", "smallest_tree"] = field(
            default="least_requests",
            metadata={
                "advice": "Where unseen prompts go: 'least_requests', or 'smallest_tree', who has seen least."
            },
        )
        max_tree_size: int = field(
            default=16_777_216,
            metadata={
                "advice": "Characters remembered per replica, half a byte of memory each. SMG: 67108864."
            },
        )

        def __post_init__(self) -> None:
            if not 0.0 <= self.cache_threshold <= 1.0:
                raise ValueError(f"cache_threshold must be 0 to 1, got {self.cache_threshold}")
            if not self.balance_abs_threshold >= 0.0:
                raise ValueError(f"balance_abs_threshold must be 0 or more, got {self.balance_abs_threshold}")
            if not self.balance_rel_threshold >= 1.0:
                raise ValueError(
                    f"balance_rel_threshold must be at least 1, got {self.balance_rel_threshold}"
                )
            if self.max_tree_size < 1:
                raise ValueError(f"max_tree_size must be at least 1, got {self.max_tree_size}")

    def __init__(self, options: Options, random: Random) -> None:
        self._options = options
        self._random = random
        self._seen = RecentBlocks()

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        return least(candidates, self._costs(request, candidates), self._random)

    def weigh(
        self,
        request: RequestFacts,
        candidates: Sequence[R],
        now: float,  # noqa: ARG002
    ) -> Sequence[Weighed]:
        """Costs are tokens not seen, or requests in flight, or blocks seen: whichever rule applies."""
        costs = self._costs(request, candidates)
        return [
            Weighed(
                replica.id,
                cost,
                {
                    "seen": self._seen_share(request, replica),
                    "in_flight": replica.in_flight,
                    "weight": replica.weight,
                    "tree_blocks": self._seen.size(replica.id),
                },
            )
            for replica, (cost, _) in zip(candidates, costs, strict=True)
        ]

    def observe(self, event: Event) -> None:
        match event:
            case Dispatched(replica=replica, prompt=prompt) if prompt is not None:
                room = self._options.max_tree_size / (_CHARACTERS_PER_TOKEN * prompt.block_tokens)
                self._seen.add(replica, prompt.blocks, room)
            case Forgotten(replica=replica) | CacheLost(replica=replica):
                self._seen.forget(replica)
            case _:
                pass

    def _costs(self, request: RequestFacts, candidates: Sequence[ReplicaView]) -> list[tuple[float, float]]:
        """What the rule that applies compares, and the load to break ties, in the candidates' order."""
        loads = [replica.in_flight / replica.weight for replica in candidates]
        prompt = request.prompt
        if prompt is None or self._is_uneven(loads):
            return [(load, 0.0) for load in loads]
        hits = self._seen.hits(prompt.blocks, [replica.id for replica in candidates])
        if tokens_of(prompt, max(hits)) > self._options.cache_threshold * prompt.tokens:
            return [
                (prompt.tokens - tokens_of(prompt, hit), load) for hit, load in zip(hits, loads, strict=True)
            ]
        if self._options.on_miss == "smallest_tree":
            return [
                (self._seen.size(replica.id), load) for replica, load in zip(candidates, loads, strict=True)
            ]
        return [(load, 0.0) for load in loads]

    def _is_uneven(self, loads: Sequence[float]) -> bool:
        most, fewest = max(loads), min(loads)
        options = self._options
        return most - fewest > options.balance_abs_threshold and most > options.balance_rel_threshold * fewest

    def _seen_share(self, request: RequestFacts, replica: ReplicaView) -> float:
        prompt = request.prompt
        if prompt is None or not prompt.tokens:
            return 0.0
        return tokens_of(prompt, self._seen.hits(prompt.blocks, [replica.id])[0]) / prompt.tokens
