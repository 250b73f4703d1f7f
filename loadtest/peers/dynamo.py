"""NVIDIA Dynamo's KV router: blocks to prefill plus blocks held while decoding.

Source: ai-dynamo/dynamo, docs/components/router/router-concepts.md and lib/kv-router/src/scheduling, with the
defaults of router-configuration.md: prefill scale 1, credit 1 for blocks on the device, temperature 0.
"""

from collections.abc import Sequence
from random import Random

from loadtest.peers.active_blocks import ActiveBlocks
from loadtest.peers.facts import FleetFacts
from loadtest.peers.prefill_book import PrefillBook
from loadtest.peers.rule import Costs, Rule, ids_of
from policies.routing.events import Dispatched, Done, Event, Forgotten, Prompt
from policies.routing.policy import Policy, ReplicaView


class KvRouter(Rule):
    """What is cached, it knows from KV events; what is pending and active, from its own requests."""

    wants_kv_events = True

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._book = PrefillBook(kv_events=True)
        self._active = ActiveBlocks()

    def costs(self, prompt: Prompt, candidates: Sequence[ReplicaView], now: float) -> Costs:  # noqa: ARG002
        """(pending + own uncached tokens) / block size + distinct active blocks with this prompt's."""
        ids = ids_of(candidates)
        uncached = self._book.uncached(prompt, ids)
        return [
            (
                (self._book.pending(id_) + own) / prompt.block_tokens
                + self._active.after(prompt.blocks, id_),
                0.0,
            )
            for id_, own in zip(ids, uncached, strict=True)
        ]

    def observe(self, event: Event) -> None:
        self._book.observe(event)
        match event:
            case Dispatched(replica=replica, prompt=prompt) if prompt is not None:
                self._active.begin(replica, event.ticket, prompt.blocks, event.at)
            case Done(replica=replica, ticket=ticket):
                self._active.end(replica, ticket)
            case Forgotten(replica=replica):
                self._active.forget(replica)
            case _:
                pass


def kv_router(random: Random, _facts: FleetFacts) -> Policy:
    """--router-mode kv with its defaults.

    Liberties: no credits for host and disk tiers; blocks of the prompt's size for those of the engine, which
    changes the unit only. Output blocks are not tracked, as by default.
    """
    return KvRouter(random)
