import pytest

from loadtest.simulate.results import Served, Slo
from loadtest.simulate.series import curve, goodput, hit_rate, load
from loadtest.simulate.workload import Call
from policies.routing.events import Prompt

CALL = Call(Prompt((), 100, 4), 101)


def served(
    at: float, ended: float, replica: str = "a", cached: int = 0, dispatched: float | None = None
) -> Served:
    return Served(
        CALL, at, 100, cached, 1, replica, 0, 1, at if dispatched is None else dispatched, ended, ended, True
    )


def test_load_is_requests_times_time() -> None:
    """From 5 to 25 of 40 s in bins of 10: half, all, half, none."""
    rows = load(
        [served(0.0, 25.0, dispatched=5.0), served(30.0, 40.0, "b"), served(38.0, 39.0, "b")],
        ["a", "b", "c"],
        40.0,
        4,
    )
    assert rows == {"a": [0.5, 1.0, 0.5, 0.0], "b": [0, 0, 0, pytest.approx(1.1)], "c": [0, 0, 0, 0]}


def test_rates_are_per_bin_and_leave_out_empty_ones() -> None:
    lines = [served(1.0, 2.0, cached=50), served(2.0, 5.0, cached=0), served(39.0, 39.5, cached=100)]
    assert hit_rate(lines, 40.0, 4) == [(5.0, 0.25), (35.0, 1.0)]
    assert goodput(lines, Slo(), 40.0, 4) == [(5.0, 0.5), (35.0, 1.0)]


def test_a_curve_ends_at_all_and_at_the_largest() -> None:
    points = curve([float(n) for n in range(1000, 0, -1)], 11)
    assert len(points) == 11
    assert points[0] == (1.0, 0.001) and points[-1] == (1000.0, 1.0)
    assert all(share == pytest.approx(value / 1000) for value, share in points)
    assert curve([]) == [] and curve([3.0]) == [(3.0, 1.0)]
