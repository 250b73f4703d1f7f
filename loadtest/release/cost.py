"""What one request costs the analysis: processor time of `observe`, the best of a few runs."""

from collections.abc import Mapping
from random import Random
from time import process_time
from typing import Final

from loadtest.release.traffic import Defect, Traffic, Witness
from policies.release.canary import Analysis, CanaryOptions

_SHARES: Final = (1.0, 5.0, 25.0, 50.0)
_REQUESTS: Final = 4_000
_RUNS: Final = 2


def cost_us() -> Mapping[float, float]:
    """Microseconds by the canary's per cent."""
    return {percent: min(_once(percent) for _ in range(_RUNS)) for percent in _SHARES}


def _once(percent: float) -> float:
    traffic = Traffic(Witness.REQUEST, Defect(), Random(0))
    seen = [traffic.next(percent / 100) for _ in range(_REQUESTS)]
    analysis = Analysis(CanaryOptions())
    analysis.begin_step(percent, 0.0)
    began = process_time()
    for one in seen:
        analysis.observe(one)
    return (process_time() - began) / _REQUESTS * 1e6
