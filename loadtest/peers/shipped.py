"""Peers whose rule is one of this project's own policies as it is."""

from random import Random

from loadtest.peers.facts import FleetFacts
from policies.routing.least_requests import LeastRequests
from policies.routing.policy import Policy
from policies.routing.power_of_two import PowerOfTwo
from policies.routing.random_choice import RandomChoice
from policies.routing.round_robin import RoundRobin
from policies.routing.session_affinity import SessionAffinity


def by_chance(random: Random, _facts: FleetFacts) -> Policy:
    """Every router's `random`."""
    return RandomChoice(RandomChoice.Options(), random)


def round_robin(random: Random, _facts: FleetFacts) -> Policy:
    """The default of NVIDIA Dynamo's router and of most balancers."""
    return RoundRobin(RoundRobin.Options(), random)


def least_requests(random: Random, _facts: FleetFacts) -> Policy:
    """AIBrix's least-request, Dynamo's least-loaded, LiteLLM's least-busy."""
    return LeastRequests(LeastRequests.Options(), random)


def power_of_two(random: Random, _facts: FleetFacts) -> Policy:
    """Ray Serve's default, and power_of_two of vllm-router and SMG. Liberty: loads are never stale."""
    return PowerOfTwo(PowerOfTwo.Options(), random)


def session_hash(random: Random, _facts: FleetFacts) -> Policy:
    """Consistent hashing of sessions: vllm-router's consistent_hash, production-stack's session routing.

    Helped by bounded loads, factor 1.25 (Mirrokni et al., 2018), which theirs have not.
    """
    return SessionAffinity(SessionAffinity.Options(load_factor=1.25), random)
