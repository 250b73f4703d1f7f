"""To whoever saw the prefix, until loads part too far: the rule of SGLang's, vLLM's and SMG's routers.

For moving over with one's own settings; they are called as there. Their trees hold characters, this one's
blocks of a prompt. It knows what it sent and nothing of what engines evict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Final

from policies.routing.events import Dispatched, Event, Forgotten, Prompt
from policies.routing.policy import R, RequestFacts, Weighed
from policies.routing.prefix_index import PrefixIndex, blocks_within

_NO_PROMPT: Final = Prompt((), 1, 1)


class PrefixAffinity:
    """Least in flight where loads differ by `balance_abs_threshold` and `balance_rel_threshold` times.

    Else the replica with the longest match, if it is more than `cache_threshold` of the prompt; else the one
    of which the least is known, or the least loaded. Equals go by chance.
    """

    learns = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        cache_threshold: float = field(
            default=0.5,
            metadata={"advice": "Least share of a prompt that counts as a match; SMG's default is 0.3."},
        )
        balance_abs_threshold: int = field(
            default=32,
            metadata={"advice": "Requests by which loads must differ before they are evened; SMG's is 64."},
        )
        balance_rel_threshold: float = field(
            default=1.1,
            metadata={"advice": "How many times the least loaded the most loaded must be; SMG's is 1.5."},
        )
        miss_to_least_loaded: bool = field(
            default=False,
            metadata={
                "advice": "Misses go to the least loaded, as with SMG; else to whom the least is known of."
            },
        )
        index_mb: float = field(
            default=256.0,
            metadata={"advice": "Memory for what was sent where, in MB; the oldest is forgotten."},
        )

        def __post_init__(self) -> None:
            if not 0 <= self.cache_threshold <= 1:
                raise ValueError(f"cache_threshold must be 0 to 1, got {self.cache_threshold}")
            if self.balance_abs_threshold < 0:
                raise ValueError(f"balance_abs_threshold must be 0 or more, got {self.balance_abs_threshold}")
            for name, least in (("balance_rel_threshold", 1.0), ("index_mb", 0.1)):
                if not least <= getattr(self, name) < inf:
                    raise ValueError(f"{name} must be at least {least:g}, got {getattr(self, name)}")

    def __init__(self, options: Options, random: Random) -> None:
        self._options = options
        self._random = random
        most = blocks_within(int(options.index_mb * 1e6))
        self._index = PrefixIndex(most, most)

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        costs = [weighed.cost for weighed in self.weigh(request, candidates, now)]
        least = min(costs)
        equals = [replica for replica, cost in zip(candidates, costs, strict=True) if cost == least]
        return equals[0] if len(equals) == 1 else equals[self._random.randrange(len(equals))]

    def weigh(self, request: RequestFacts, candidates: Sequence[R], now: float) -> Sequence[Weighed]:  # noqa: ARG002
        prompt = request.prompt or _NO_PROMPT
        hits, sizes = self._index.match(prompt.blocks), self._index.sizes()
        of_one = prompt.block_tokens / max(1, prompt.tokens)
        shares = [min(1.0, hits.get(replica.id, 0) * of_one) for replica in candidates]
        uneven = self._is_uneven([replica.in_flight for replica in candidates])
        matches = not uneven and max(shares) > self._options.cache_threshold
        weighed = []
        for replica, share in zip(candidates, shares, strict=True):
            known = sizes.get(replica.id, 0)
            if matches:
                cost = -share
            elif uneven or self._options.miss_to_least_loaded:
                cost = replica.in_flight
            else:
                cost = known
            terms = {"match": share, "in_flight": replica.in_flight, "known_blocks": known}
            weighed.append(Weighed(replica.id, cost, {**terms, "uneven": float(uneven)}))
        return weighed

    def observe(self, event: Event) -> None:
        if isinstance(event, Dispatched) and event.prompt is not None:
            self._index.insert(event.replica, event.prompt.blocks)
        elif isinstance(event, Forgotten):
            self._index.forget(event.replica)

    def _is_uneven(self, loads: Sequence[int]) -> bool:
        most, least = max(loads), min(loads)
        options = self._options
        return most - least > options.balance_abs_threshold and most > options.balance_rel_threshold * least
