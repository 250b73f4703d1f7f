from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from loadtest.simulate.capacity import Capacity, capacities
from loadtest.simulate.job import Answer, Job
from loadtest.simulate.results import Slo, summary_of
from loadtest.simulate.scenarios import SCENARIOS

EMPTY = summary_of([], Slo(), 8)
CONDITIONS = Job(scenario="", policy="", speed=0.0, workers=4, seed=7)


def found(goodput: Callable[[Job], float], steps: int = 10) -> Mapping[tuple[str, str], Capacity]:
    asking = capacities(["conv8", "synth8"], ["a", "b"], steps, CONDITIONS)
    jobs = next(asking)
    rounds = 0
    while True:
        rounds += 1
        assert len(jobs) == 4 and all(job.workers == 4 and job.seed == 7 for job in jobs)
        try:
            jobs = asking.send([Answer(replace(EMPTY, goodput=goodput(job)), None) for job in jobs])
        except StopIteration as ended:
            assert rounds == steps
            result: Mapping[tuple[str, str], Capacity] = ended.value
            return result


def test_it_finds_where_goodput_falls_below_nine_in_ten() -> None:
    """To within the range's ratio to the power 1 / 2^10, from below."""
    true = {("conv8", "a"): 2.5, ("conv8", "b"): 1.0, ("synth8", "a"): 0.3, ("synth8", "b"): 2.0}
    result = found(lambda job: 0.95 if job.speed <= true[job.scenario, job.policy] else 0.85)
    for key, speed in true.items():
        assert result[key].found and result[key].speed <= speed
        assert result[key].speed == pytest.approx(speed, rel=0.005)


def test_what_lies_outside_the_range_is_said() -> None:
    result = found(lambda job: 0.5 if job.policy == "a" else 1.0)
    low, high = SCENARIOS["conv8"].speeds
    assert result["conv8", "a"] == (low, False) and str(result["conv8", "a"]) == f"<{low:.2f}"
    assert result["conv8", "b"].speed == pytest.approx(high, rel=0.005)
    assert str(Capacity(1.234, True)) == "1.23"
