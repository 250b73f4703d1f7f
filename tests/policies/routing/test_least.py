from collections import Counter
from random import Random

from policies.routing.least import least
from tests.support.routing import fits, replicas


def test_the_least_is_chosen() -> None:
    """Wherever it stands, and also where the second of two numbers decides."""
    fleet = replicas(1, 1, 1)
    assert least(fleet, [2.0, 0.5, 1.0], Random(1)) is fleet[1]
    assert least(fleet, [(0.0, 3.0), (1.0, 0.0), (0.0, 2.0)], Random(1)) is fleet[2]


def test_equals_share_by_weight() -> None:
    """10,000 choices between three equals go in proportion to weight, and the dearer one gets none."""
    random = Random(2)
    fleet = replicas(1, 2, 8, 5)
    counts = Counter(least(fleet, [1.0, 1.0, 3.0, 1.0], random).id for _ in range(10_000))
    assert fits(counts, {fleet[0].id: 1, fleet[1].id: 2, fleet[3].id: 5})
