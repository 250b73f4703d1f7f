"""vLLM production-stack's prefixaware: the longest match, whatever the load.

Source: vllm-project/production-stack, src/vllm_router/routers/routing_logic.py (PrefixAwareRouter) and
src/vllm_router/prefix/hashtrie.py.
"""

from collections.abc import Sequence
from random import Random

from loadtest.peers.facts import FleetFacts
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.routing.events import Dispatched, Event, Prompt
from policies.routing.policy import Policy, ReplicaView
from policies.routing.recent_blocks import RecentBlocks


class PrefixAware(Rule):
    """Ties by chance; a prompt that nobody knows goes anywhere. Nothing is ever evicted or forgotten."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._seen = RecentBlocks()

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:  # noqa: ARG002
        return [(-hit, 0.0) for hit in self._seen.hits(prompt.blocks, ids_of(candidates))]

    def observe(self, event: Event) -> None:
        if isinstance(event, Dispatched) and event.prompt is not None:
            self._seen.add(event.replica, event.prompt.blocks)


def prefix_aware(random: Random, _facts: FleetFacts) -> Policy:
    """--routing-logic prefixaware with its default of no minimum match.

    Liberty: the prompt's own blocks in place of chunks of 128 characters.
    """
    return PrefixAware(random)
