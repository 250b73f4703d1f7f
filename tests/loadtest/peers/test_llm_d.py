from loadtest.peers import FleetFacts
from tests.support.peer_policies import cache, chosen, fleet_of, give, peer
from tests.support.routing import FakeLoad, FakeReplica

PROMPT = "x" * 40
"""Ten blocks of 64 tokens."""


def scraped(**figures: tuple[float, float]) -> list[FakeReplica]:
    """Replicas by name, with their waiting requests and KV usage."""
    return [
        FakeReplica(name, load=FakeLoad(waiting_requests=waiting, kv_usage_ratio=usage))
        for name, (waiting, usage) in figures.items()
    ]


def test_default_weighs_prefix_against_load() -> None:
    """3 x 1 + 0 + 2 x 0.4 = 3.8 for the cache, against 2 + 2 x 0.9 = 3.8 and a bit for who is idle."""
    policy = peer("llm_d")
    cache(policy, "a", PROMPT, 1)
    assert chosen(policy, PROMPT, scraped(a=(9, 0.59), b=(0, 0.11))) == "a"
    assert chosen(policy, PROMPT, scraped(a=(9, 0.61), b=(0, 0.09))) == "b"


def test_precise_believes_engines_only() -> None:
    """What was sent is not cached before the engine says so, which `cache` does."""
    policy = peer("llm_d_precise")
    cache(policy, "a", PROMPT, 1)
    assert chosen(policy, PROMPT, scraped(a=(9, 0.59), b=(0, 0.11))) == "a"


def test_cold_prompts_go_round() -> None:
    """A prompt that nobody knows goes to who never had one, then to who had one longest ago."""
    policy = peer("llm_d_no_hit_lru")
    cache(policy, "a", "a" * 40, 1)
    assert chosen(policy, "b" * 40, fleet_of(a=0, b=0)) == "b"
    cache(policy, "b", "b" * 40, 2)
    assert chosen(policy, "c" * 40, fleet_of(a=0, b=0)) == "a"
    assert chosen(policy, "b" * 40, fleet_of(a=0, b=0)) == "b"


def test_active_requests_are_the_routers_own() -> None:
    """3 x 1.0 + 2 x 0 = 3 against 2 x 1: the cache wins; half of it, 1.5, does not."""
    policy = peer("llm_d_active_request")
    cache(policy, "a", PROMPT, 1)
    assert chosen(policy, PROMPT, fleet_of(a=9, b=0)) == "a"
    assert chosen(policy, PROMPT + "y" * 40, fleet_of(a=9, b=0)) == "b"


def test_the_affinity_filter_holds_until_the_gate() -> None:
    """18 s at 15,928 tokens/s are 286,704 tokens: a queue of 286,720 on "a" breaks its hold."""
    policy = peer("llm_d_affinity_filter", FleetFacts(1_000_000, 1_000))
    cache(policy, "a", PROMPT, 1)
    assert chosen(policy, PROMPT, fleet_of(a=9, b=0)) == "a"
    give(policy, "a", "q" * 17_916, 2)  # 286,656 tokens
    assert chosen(policy, PROMPT, fleet_of(a=9, b=0)) == "a"
    give(policy, "a", "r" * 4, 3)
    assert chosen(policy, PROMPT, fleet_of(a=9, b=0)) == "b"


def test_the_affinity_filter_lets_cold_prompts_go_to_the_fewest_tokens() -> None:
    """With 0.75 of it cached a replica is not sticky."""
    policy = peer("llm_d_affinity_filter")
    cache(policy, "a", "x" * 30, 1)
    give(policy, "a", "q" * 8, 2)
    assert chosen(policy, PROMPT, fleet_of(a=0, b=9)) == "b"
