"""GORGO: own uncached tokens plus the tokens queued at the replica.

Source: gorgo-lb 0.2.0, gorgo/policy/gorgo.py.
"""

from collections.abc import Sequence
from random import Random

from loadtest.peers.facts import FleetFacts
from loadtest.peers.prefill_book import PrefillBook
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.routing.events import Event, Prompt
from policies.routing.policy import Policy, ReplicaView


class Gorgo(Rule):
    """All three weights 1; queued tokens are whole prompts, cached or not, and its trie never evicts."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._book = PrefillBook(counts_cached=True)

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:  # noqa: ARG002
        uncached = self._book.uncached(prompt, ids_of(candidates))
        return [
            (own + self._book.pending(replica.id), 0.0)
            for replica, own in zip(candidates, uncached, strict=True)
        ]

    def observe(self, event: Event) -> None:
        self._book.observe(event)


def gorgo(random: Random, _facts: FleetFacts) -> Policy:
    """With its published weights, which its tuner would change.

    Liberties: round-trip times are equal, so that term is left out; load is released at the first token, its
    better mode (load_release_at_ttft).
    """
    return Gorgo(random)
