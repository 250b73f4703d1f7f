from collections import Counter
from itertools import permutations

import pytest

from policies.routing.rendezvous import Rendezvous
from tests.support.routing import fits

ORDERS = ["".join(order) for order in permutations("abcd")]


def order(rendezvous: Rendezvous, session: str, ids: str, weights: list[float]) -> str:
    ranked = sorted(zip(rendezvous.scores(session, ids, weights), ids, strict=True), reverse=True)
    return "".join(id_ for _, id_ in ranked)


@pytest.mark.parametrize("weights", [[1.0] * 4, [1.0, 2.0, 3.0, 4.0]])
def test_every_order_is_as_likely_as_it_should_be(weights: list[float]) -> None:
    """Over 24,000 sessions the whole ranking is drawn like lots without replacement, not just its head."""
    rendezvous = Rendezvous()
    weight_of = dict(zip("abcd", weights, strict=True))
    shares = {}
    for each in ORDERS:
        share, left = 1.0, sum(weights)
        for id_ in each:
            share *= weight_of[id_] / left
            left -= weight_of[id_]
        shares[each] = share
    counts = Counter(order(rendezvous, f"session-{number}", "abcd", weights) for number in range(24_000))
    assert fits(counts, shares)


def test_an_id_scores_the_same_in_any_company() -> None:
    """A score depends on the session and the one replica alone."""
    rendezvous = Rendezvous()
    alone = rendezvous.scores("s", ["b"], [2.0])
    assert rendezvous.scores("s", ["a", "b", "c"], [2.0, 2.0, 2.0])[1] == alone[0]


def test_similar_names_are_not_similar_draws() -> None:
    """Sessions and replicas that differ in one character share homes as often as strangers do."""
    rendezvous = Rendezvous()
    ids = [f"10.0.0.1:{port}" for port in range(8000, 8008)]

    def home(session: str) -> int:
        scores = rendezvous.scores(session, ids, [1.0] * 8)
        return scores.index(max(scores))

    pairs = Counter(str(home(f"user-{n}-a") == home(f"user-{n}-b")) for n in range(8_000))
    assert fits(pairs, {"True": 1, "False": 7})
