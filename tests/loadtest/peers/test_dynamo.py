import pytest

from policies.routing.events import BlocksRemoved, Forgotten
from tests.support.peer_policies import cache, chosen, costs, finish, fleet_of, give, peer, prefilled
from tests.support.routing import NOW, prompt_of


def test_the_example_of_its_documents() -> None:
    """Ten blocks, of which three workers have 2, 5 and 8 cached; they decode 10, 5 and 9 others: 18, 10 and 11.

    Its example counts only what decodes already; the ten blocks of the prompt come on top of each.
    """
    policy = peer("dynamo")
    for ticket, (replica, cached, active) in enumerate([("w1", 2, 10), ("w2", 5, 5), ("w3", 8, 9)]):
        cache(policy, replica, "x" * cached, ticket)
        give(policy, replica, chr(ord("a") + ticket) * active, 10 + ticket)
        prefilled(policy, replica, 10 + ticket)
    fleet = fleet_of(w1=0, w2=0, w3=0)
    assert costs(policy, "x" * 10, fleet) == [18 + 10, 10 + 10, 11 + 10]
    assert chosen(policy, "x" * 10, fleet) == "w2"


def test_prefill_is_charged_until_the_first_token() -> None:
    """Five blocks pending and held, then held only, then gone."""
    policy = peer("dynamo")
    fleet = fleet_of(a=0)
    give(policy, "a", "other", 1)
    assert costs(policy, "xx", fleet) == [(5 + 2) + (5 + 2)]
    prefilled(policy, "a", 1)
    assert costs(policy, "xx", fleet) == [2 + (5 + 2)]
    finish(policy, "a", 1)
    assert costs(policy, "xx", fleet) == [2 + 2]


def test_active_blocks_are_shared() -> None:
    """A second request with the same prompt needs no more blocks than the first, and one token of prefill."""
    policy = peer("dynamo")
    give(policy, "a", "xx", 1)
    prefilled(policy, "a", 1)
    assert costs(policy, "xx", fleet_of(a=0)) == [1 / 16 + 2]


def test_caches_are_what_engines_say() -> None:
    """What was removed is a miss again, and so is everything after a restart."""
    policy = peer("dynamo")
    cache(policy, "a", "xxxx", 1)
    policy.observe(BlocksRemoved("a", NOW, prompt_of("xxxx").blocks[2:]))
    assert costs(policy, "xxxx", fleet_of(a=0)) == [2 + 4]
    give(policy, "a", "yyyy", 2)
    policy.observe(Forgotten("a", NOW))
    assert costs(policy, "xxxx", fleet_of(a=0)) == pytest.approx([4 + 4])
