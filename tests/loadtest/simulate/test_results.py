from math import isnan

import pytest

from loadtest.simulate.results import Served, Slo, measured, quantile, summary_of
from loadtest.simulate.workload import Call
from policies.routing.events import Prompt

CALL = Call(Prompt((), 100, 4), 101)


def served(
    at: float = 0.0,
    ttft: float | None = 1.0,
    tpot: float = 0.01,
    *,
    ok: bool = True,
    tokens: int = 101,
    replica: str = "a",
    cached: int = 0,
) -> Served:
    first = None if ttft is None else at + ttft
    ended = at + 9 if first is None else first + tpot * (tokens - 1)
    return Served(CALL, at, 100, cached, tokens, replica, 0, 1, at, first, ended, ok)


@pytest.mark.parametrize(
    ("one", "meets"),
    [
        (served(ttft=2.0, tpot=0.05), True),
        (served(ttft=2.01), False),
        (served(tpot=0.051), False),
        (served(ok=False), False),
        (served(ttft=None, ok=False), False),
        (served(tokens=1), True),
    ],
)
def test_the_slo(one: Served, meets: bool) -> None:
    assert one.meets(Slo(2.0, 0.0500001)) is meets


def test_a_summary() -> None:
    lines = [
        served(float(n), ttft=n / 10, tpot=0.02, cached=25, replica="a" if n < 30 else "b")
        for n in range(1, 41)
    ]
    summary = summary_of(lines, Slo(), 4)
    assert summary.requests == 40 and summary.hit == 0.25 and summary.failed == 0
    assert (summary.ttft_p50_s, summary.ttft_p90_s, summary.ttft_p99_s) == pytest.approx((2.0, 3.6, 4.0))
    assert summary.ttft_mean_s == pytest.approx(2.05)
    assert (summary.tpot_mean_s, summary.tpot_p99_s) == pytest.approx((0.02, 0.02))
    assert summary.goodput == 0.5
    assert summary.busiest == pytest.approx(29 * 4 / 40)
    assert summary.end_to_end_p99_s == pytest.approx(6.0)


def test_the_warm_up_is_left_out_by_arrival() -> None:
    lines = [served(float(n)) for n in (5, 3, 9, 1, 7, 2, 8, 4, 6, 0)]
    assert [one.at for one in measured(lines, 0.3)] == [3, 4, 5, 6, 7, 8, 9]


def test_of_nothing() -> None:
    summary = summary_of([], Slo(), 2)
    assert (
        summary.requests == 0 and isnan(summary.hit) and isnan(summary.goodput) and isnan(summary.ttft_p99_s)
    )
    assert isnan(quantile([], 0.5))
