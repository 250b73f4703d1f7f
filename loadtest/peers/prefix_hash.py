"""SMG's prefix_hash: prompts that begin alike have one home, unless it is overloaded.

Source: lightseekorg/smg, model_gateway/src/policies/prefix_hash.rs.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

from loadtest.peers.facts import FleetFacts
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.routing.events import Event, Prompt
from policies.routing.policy import Policy, ReplicaView
from policies.routing.rendezvous import Rendezvous

_HASHED_TOKENS: Final = 256
_LOAD_FACTOR: Final = 1.25


class PrefixHash(Rule):
    """A home with more than 1.25 times the mean load, this request counted, leaves it to the least loaded."""

    learns = False

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._rendezvous = Rendezvous()

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:  # noqa: ARG002
        loads = [replica.in_flight for replica in candidates]
        if prompt.blocks:
            draws = self._rendezvous.scores(_beginning(prompt), ids_of(candidates), [1.0] * len(candidates))
            home = draws.index(max(draws))
            if loads[home] <= _LOAD_FACTOR * (sum(loads) + 1) / len(loads):
                return [(float(position != home), 0.0) for position in range(len(loads))]
        return [(load, 0.0) for load in loads]

    def observe(self, event: Event) -> None:
        """There is nothing to learn."""


def _beginning(prompt: Prompt) -> str:
    depth = max(1, min(len(prompt.blocks), int(_HASHED_TOKENS / prompt.block_tokens)))
    return str(prompt.blocks[depth - 1])


def prefix_hash(random: Random, _facts: FleetFacts) -> Policy:
    """With its defaults: 256 tokens, load factor 1.25.

    Liberties: rendezvous hashing for its ring; it hashes the last whole block within 256 tokens, or the first
    block where that is longer; a prompt without a block goes to the least loaded.
    """
    return PrefixHash(random)
