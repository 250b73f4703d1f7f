import pytest

from tests.support.peer_policies import cache, chosen, fleet_of, peer

HALF, MOST = "sharedxxxxxx", "sharedx"
"""Of which "shared" is a half, and six sevenths."""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sglang", HALF, "b"),  # not more than 0.5
        ("vllm_router", HALF, "b"),
        ("vllm_router", MOST, "a"),
        ("smg", HALF, "a"),  # more than 0.3
        ("smg", "shared" + "x" * 14, "b"),  # 6 / 20 is not
        ("ray_serve", "shared" + "x" * 50, "a"),  # 6 / 56 is more than 0.1
        ("ray_serve", "shared" + "x" * 60, "b"),
    ],
)
def test_the_threshold(name: str, text: str, expected: str) -> None:
    """ "a" has the prefix and is busier."""
    policy = peer(name)
    cache(policy, "a", "shared", 1)
    assert chosen(policy, text, fleet_of(a=5, b=4)) == expected


@pytest.mark.parametrize(
    ("name", "in_flight", "expected"),
    [
        ("sglang", (433, 400), "b"),  # 33 > 32 and 433 > 1.0001 x 400
        ("vllm_router", (433, 400), "a"),  # 433 <= 1.1 x 400
        ("vllm_router", (33, 0), "b"),
        ("smg", (64, 0), "a"),
        ("smg", (65, 0), "b"),
        ("smg", (165, 110), "a"),  # 165 <= 1.5 x 110, and 55 <= 64
        ("ray_serve", (1_000, 0), "a"),  # no gate by default
    ],
)
def test_the_gate_on_imbalance(name: str, in_flight: tuple[int, int], expected: str) -> None:
    """ "a" has the whole prompt."""
    policy = peer(name)
    cache(policy, "a", "shared", 1)
    assert chosen(policy, "shared", fleet_of(a=in_flight[0], b=in_flight[1])) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("sglang", "b"), ("vllm_router", "a"), ("smg", "a"), ("ray_serve", "b")]
)
def test_a_miss(name: str, expected: str) -> None:
    """ "a" has the larger tree and fewer requests: some look at the one, some at the other."""
    policy = peer(name)
    cache(policy, "a", "a long prompt", 1)
    cache(policy, "b", "short", 2)
    assert chosen(policy, "unseen", fleet_of(a=1, b=2)) == expected
