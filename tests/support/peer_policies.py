"""Peers' policies on situations small enough to work out by hand."""

from random import Random

from loadtest.peers import PEERS, FleetFacts
from policies.outcome import Ending, Outcome
from policies.routing.events import BlocksStored, Dispatched, Done, FirstToken
from policies.routing.policy import Policy
from tests.support.routing import NOW, FakeReplica, FakeRequest, prompt_of

FACTS = FleetFacts(kv_capacity_tokens=16 * 100, prefill_tokens_per_s=1_000.0, prefill_rates={"fast": 4_000.0})


def peer(name: str, facts: FleetFacts = FACTS) -> Policy:
    return PEERS[name](Random(1), facts)


def fleet_of(**in_flight: int) -> list[FakeReplica]:
    """Replicas by name, with their requests in flight."""
    return [FakeReplica(name, in_flight=count) for name, count in in_flight.items()]


def chosen(policy: Policy, text: str, fleet: list[FakeReplica], now: float = NOW) -> str:
    """Where a prompt goes: one block of 16 tokens per character."""
    return policy.choose(FakeRequest(prompt=prompt_of(text)), fleet, now).id


def costs(policy: Policy, text: str, fleet: list[FakeReplica], now: float = NOW) -> list[float]:
    return [weighed.cost for weighed in policy.weigh(FakeRequest(prompt=prompt_of(text)), fleet, now)]


def give(policy: Policy, replica: str, text: str, ticket: int, at: float = NOW) -> None:
    """The prompt is sent there; an engine with KV events says at once that it has it."""
    policy.observe(Dispatched(replica, ticket, at, prompt_of(text)))
    policy.observe(BlocksStored(replica, at, prompt_of(text).blocks))


def prefilled(policy: Policy, replica: str, ticket: int, at: float = NOW) -> None:
    policy.observe(FirstToken(replica, ticket, at))


def finish(policy: Policy, replica: str, ticket: int, at: float = NOW, tokens: int = 1) -> None:
    """The last token comes at `at`, the first came a second before."""
    policy.observe(
        Done(replica, ticket, at, Outcome(Ending.COMPLETED, at - 2, at - 1, at, completion_tokens=tokens))
    )


def cache(policy: Policy, replica: str, text: str, ticket: int) -> None:
    """The replica served the prompt and is idle again."""
    give(policy, replica, text, ticket)
    prefilled(policy, replica, ticket)
    finish(policy, replica, ticket)
