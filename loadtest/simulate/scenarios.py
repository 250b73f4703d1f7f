"""The workloads of the routing benchmark, each on its fleet, and where their traces are looked for.

Some are made here; for the others the folder of traces must hold, compressed by gzip or not,

- `conversation_trace.jsonl`, `synthetic_trace.jsonl`: github.com/kvcache-ai/Mooncake, FAST25-release/traces;
- `miniswe`, a folder or a tar archive of it: github.com/LMCache/lmcache-agent-trace.

What is not there is left out and named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

from loadtest.simulate.generators import GENERATORS
from loadtest.simulate.hardware import HARDWARE, Hardware
from loadtest.simulate.results import Slo
from loadtest.simulate.setup import ReplicaSetup, alike
from loadtest.simulate.traces import read_trace
from loadtest.simulate.workload import Workload

_REPLICAS: Final = 8
_MIXED: Final = (1.0, 1.0, 2.0, 4.0)
_GENERATED_CALLS: Final = 12_000
_AGENT_COPIES: Final = 60
_AGENT_SESSIONS_PER_S: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One workload on one fleet of eight."""

    source: str
    """A generator, or a trace of `TRACE_FILES`."""
    speed: float
    """The fixed load: near the capacity of a router that knows everything."""
    speeds: tuple[float, float]
    """Between these the capacity is looked for."""
    hardware: Hardware = field(default_factory=Hardware)
    slowdowns: tuple[float, ...] = (1.0,)
    slo: Slo = field(default_factory=Slo)

    @property
    def replicas(self) -> list[ReplicaSetup]:
        return alike(_REPLICAS, self.hardware, self.slowdowns)


_WITH_HOST: Final = replace(HARDWARE["8b-h100"], host_tokens=2_100_000)

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        "conv8": Scenario(source="conversation", speed=2.6, speeds=(0.6, 3.6), hardware=_WITH_HOST),
        "synth8": Scenario(source="synthetic", speed=1.5, speeds=(0.25, 2.2)),
        "agent8": Scenario(source="agent", speed=18.0, speeds=(2.0, 40.0)),
        "gmi8": Scenario(
            source="gmi", speed=2.4, speeds=(0.8, 4.0), hardware=HARDWARE["8b-a10g"], slo=Slo(2.0, 0.1)
        ),
        "tool8": Scenario(source="tool", speed=4.2, speeds=(1.0, 6.0)),
        "drift8": Scenario(source="drift", speed=4.2, speeds=(1.0, 6.0)),
        "conv8mix": Scenario(
            source="conversation", speed=1.4, speeds=(0.4, 2.2), hardware=_WITH_HOST, slowdowns=_MIXED
        ),
        "synth8mix": Scenario(source="synthetic", speed=0.45, speeds=(0.1, 0.9), slowdowns=_MIXED),
    }
)
"""`conv` has host memory behind its caches: with HBM alone every policy finds 5 to 10 % there."""

TRACE_FILES: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "conversation": ("conversation_trace.jsonl", "mooncake_conversation.jsonl"),
        "synthetic": ("synthetic_trace.jsonl", "mooncake_synthetic.jsonl"),
        "agent": ("miniswe", "agent-miniswe"),
    }
)
"""Names that a trace goes by; the first is its owner's."""

_ENDINGS: Final = ("", ".gz", ".tar", ".tar.gz", ".tgz")
_QUANTUM_S: Final = 3.0
"""The conversation trace's time stamps are this coarse; played as they are, ten requests come at once."""


class Library:
    """Reads each workload once."""

    def __init__(self, traces: Path | None, calls: int | None = None) -> None:
        self._traces = traces
        self._calls = calls
        self._read: dict[tuple[str, int], Workload] = {}

    def file_of(self, source: str) -> Path | None:
        """The trace's file, if it is there."""
        names = [name + ending for name in TRACE_FILES[source] for ending in _ENDINGS]
        paths = [self._traces / name for name in names] if self._traces else []
        return next((path for path in paths if path.exists()), None)

    def missing(self, source: str) -> str | None:
        """What file to get, if there is one to get."""
        needed = source in TRACE_FILES and self.file_of(source) is None
        return TRACE_FILES[source][0] if needed else None

    def workload(self, source: str, seed: int) -> Workload:
        """At speed 1. Raises OSError, TraceError."""
        key = (source, seed)
        if key not in self._read:
            work = self._make(source, Random(seed))
            self._read[key] = work if self._calls is None else work.first(self._calls)
        return self._read[key]

    def _make(self, source: str, random: Random) -> Workload:
        if source not in TRACE_FILES:
            return GENERATORS[source](self._calls or _GENERATED_CALLS, random)
        path = self.file_of(source)
        if path is None:
            raise FileNotFoundError(f"{TRACE_FILES[source][0]} is not in {self._traces}")
        if source == "agent":
            return read_trace(path, "agent", random).copied(_AGENT_COPIES, _AGENT_SESSIONS_PER_S, random)
        spread_s = _QUANTUM_S if source == "conversation" else 0.0
        return read_trace(path, "mooncake", random, spread_s=spread_s)
