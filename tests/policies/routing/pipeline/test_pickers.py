from collections import Counter
from random import Random

import pytest

from policies.routing.pipeline.pickers import PICKERS
from tests.support.routing import fits


@pytest.mark.parametrize(
    ("name", "scores", "shares"),
    [
        ("max_score", [1.0, 3.0, 3.0, 2.0], {1: 2, 2: 1}),
        ("max_score", [-1.0, -2.0, -1.5, -3.0], {0: 1}),
        ("weighted_random", [1.0, 3.0, 0.0, 2.0], {0: 1, 1: 3, 3: 2}),
        ("weighted_random", [0.0, 0.0, 0.0, 0.0], {0: 1, 1: 2, 2: 1, 3: 4}),
        ("random", [0.0, 9.0, 0.0, 0.0], {0: 1, 1: 2, 2: 1, 3: 4}),
    ],
)
def test_shares(name: str, scores: list[float], shares: dict[int, float]) -> None:
    """Of 10,000 picks of replicas that weigh 1, 2, 1 and 4."""
    random = Random(1)
    counts = Counter(str(PICKERS[name](scores, [1, 2, 1, 4], random)) for _ in range(10_000))
    if len(shares) == 1:
        assert counts.keys() == {str(each) for each in shares}
    else:
        assert fits(counts, {str(position): share for position, share in shares.items()})
