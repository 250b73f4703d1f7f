from loadtest.peers.preble import ReplicaLoad
from policies.routing.events import Forgotten
from tests.support.peer_policies import cache, chosen, costs, finish, fleet_of, give, peer
from tests.support.routing import NOW


def test_most_of_the_prompt_is_exploited() -> None:
    """ "a" has three of five blocks and the more work; of four and eight, half is not most."""
    policy = peer("preble")
    cache(policy, "a", "xxx", 1)
    give(policy, "a", "qqqq", 2)
    assert chosen(policy, "xxxyy", fleet_of(a=0, b=0)) == "a"
    assert chosen(policy, "xxxyyy", fleet_of(a=0, b=0)) == "b"


def test_of_holders_the_least_loaded() -> None:
    """Both have it; the longer queue loses."""
    policy = peer("preble")
    cache(policy, "a", "xxx", 1)
    cache(policy, "b", "xxx", 2)
    give(policy, "a", "qqqq", 3)
    assert chosen(policy, "xxx", fleet_of(a=0, b=0, c=0)) == "b"


def test_load_is_prefill_of_three_minutes_and_decodes_ahead() -> None:
    """0.064 s of prefill at 1,000 tokens/s, and 45 tokens of 0.15 s; when it ends the first only; later none."""
    policy = peer("preble")
    give(policy, "a", "qqqq", 1)
    assert costs(policy, "new", fleet_of(a=0, b=0)) == [0.064 + 45 * 0.15, 0.0]
    finish(policy, "a", 1)
    assert costs(policy, "new", fleet_of(a=0, b=0)) == [0.064, 0.0]
    assert costs(policy, "new", fleet_of(a=0, b=0), NOW + 180) == [0.064, 0.0]
    assert costs(policy, "new", fleet_of(a=0, b=0), NOW + 181) == [0.0, 0.0]


def test_decode_times_are_learned() -> None:
    """Medians: ten tokens after the first in a second are 0.1 s each, with 0.15 s first assumed that is 0.125 s."""
    policy = peer("preble")
    give(policy, "a", "qqqq", 1)
    finish(policy, "a", 1, tokens=11)
    give(policy, "a", "qqqq", 2)
    assert costs(policy, "new", fleet_of(a=0)) == [0.064 + (45 + 11) / 2 * 0.125]


def test_holders_with_too_much_pass_it_on() -> None:
    """From 50 requests per replica on, a holder with more than 1.5 times the least load does not get the next."""
    policy = peer("preble")
    for ticket in range(99):
        give(policy, "ab"[ticket % 2], chr(200 + ticket), ticket)
    give(policy, "a", "xxx", 1_000)
    assert chosen(policy, "xxx", fleet_of(a=0, b=0)) == "a"
    for ticket in range(60):
        give(policy, "a", chr(400 + ticket), 2_000 + ticket)
    assert chosen(policy, "xxx", fleet_of(a=0, b=0)) == "b"


def test_a_restart_is_an_empty_replica() -> None:
    """Neither cache nor load."""
    policy = peer("preble")
    give(policy, "a", "xxx", 1)
    give(policy, "b", "qqqq", 2)
    policy.observe(Forgotten("a", NOW))
    assert costs(policy, "xxx", fleet_of(a=0, b=0))[0] == 0.0
    assert chosen(policy, "qqqq", fleet_of(a=0, b=0)) == "b"


def test_a_window_leaves_no_rounding_behind() -> None:
    """A thousand tenths and what is left of them."""
    load = ReplicaLoad()
    for number in range(1_000):
        load.add(NOW + number, 0.1)
    assert abs(load.prefill_s(NOW + 999) - 18.1) < 1e-9
    assert load.prefill_s(NOW + 5_000) == 0.0
