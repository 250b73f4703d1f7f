"""Capacity: the highest speed at which nine requests in ten are inside the SLO, found by bisection."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from loadtest.simulate.job import Answer, Job
from loadtest.simulate.scenarios import SCENARIOS

GOODPUT: Final = 0.9


class Capacity(NamedTuple):
    """A speed. `found` False: none that was tried was low enough, and `speed` is the lowest of the range."""

    speed: float
    found: bool

    def __str__(self) -> str:
        return f"{self.speed:.2f}" if self.found else f"<{self.speed:.2f}"


def capacities(
    names: Sequence[str], policies: Sequence[str], steps: int, conditions: Job
) -> Generator[list[Job], list[Answer], Mapping[tuple[str, str], Capacity]]:
    """By scenario and policy, under `conditions` (whose scenario, policy and speed do not matter).

    All bisections go in step, on a logarithmic scale, so that there is always work for all cores.
    """
    keys = [(name, policy) for name in names for policy in policies]
    low = {key: SCENARIOS[key[0]].speeds[0] for key in keys}
    high = {key: SCENARIOS[key[0]].speeds[1] for key in keys}
    found = dict.fromkeys(keys, False)
    for _ in range(steps):
        tried = {key: (low[key] * high[key]) ** 0.5 for key in keys}
        jobs = [
            replace(conditions, scenario=name, policy=policy, speed=tried[name, policy], enough=GOODPUT)
            for name, policy in keys
        ]
        for key, answer in zip(keys, (yield jobs), strict=True):
            if answer.summary.goodput >= GOODPUT:
                low[key], found[key] = tried[key], True
            else:
                high[key] = tried[key]
    return {key: Capacity(low[key], found[key]) for key in keys}
