"""The routing suite: workloads under load, policies beside their peers, each cell one simulation.

Rates are fixed so that the best policies keep most promises and the others do not; `capacity` looks for the
rate itself. What needs a recording that is not there is left out and named.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Final

from loadtest.peers import PEERS, SCRAPES_FAST, WANTS_KV_EVENTS
from loadtest.simulate.asks import Workload, faster
from loadtest.simulate.figures import Figures, Promise, figures
from loadtest.simulate.fleet import Setting, Simulation
from loadtest.simulate.generators import Shape, chat, drift, tool
from loadtest.simulate.replica import HARDWARE, Hardware
from loadtest.simulate.traces import read_conversation, read_mooncake, read_sessions
from policies.routing.expected_latency import ExpectedLatency
from policies.routing.policy import Policy

OURS: Final = "expected_latency"
_EQUAL: Final = (1.0,) * 8
_MIXED: Final = (1.0, 1.0, 2.0, 4.0) * 2
_LARGE: Final = HARDWARE["8b-h100"]
_WITH_HOST: Final = replace(_LARGE, host_tokens=2_100_000)
_SMALL: Final = HARDWARE["8b-a10g"]
CONVERSATION: Final = "mooncake_conversation.jsonl.gz"
SYNTHETIC: Final = "mooncake_synthetic.jsonl.gz"
AGENTS: Final = "agent-miniswe.tar.gz"


@dataclass(frozen=True, slots=True)
class Load:
    """A workload on a fleet. `rate`: times the recording's own, or requests (sessions) a second."""

    trace: str | None
    rate: float
    hardware: Hardware
    slowdowns: tuple[float, ...] = _EQUAL
    promise: Promise = field(default_factory=Promise)


LOADS: Final[Mapping[str, Load]] = MappingProxyType(
    {
        "conv8": Load(CONVERSATION, 2.6, _WITH_HOST),
        "synth8": Load(SYNTHETIC, 1.5, _LARGE),
        "agent8": Load(AGENTS, 12.0, _LARGE),
        "chat8": Load(None, 9.8, _SMALL, promise=Promise(2.0, 0.1)),
        "conv8mix": Load(CONVERSATION, 1.4, _WITH_HOST, _MIXED),
        "synth8mix": Load(SYNTHETIC, 0.6, _LARGE, _MIXED),
        "tool8": Load(None, 32.0, _LARGE),
        "drift8": Load(None, 32.0, _LARGE),
    }
)
SIX: Final = ("conv8", "synth8", "agent8", "chat8", "conv8mix", "synth8mix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One simulation; `setting` are changes to the load's own, `options` the policy's."""

    label: str
    load: str
    policy: str
    rate: float | None = None
    seed: int = 1
    setting: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    traces: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    cell: Cell
    figures: Figures


def missing(names: Sequence[str], traces: Path | None) -> dict[str, str]:
    """Loads whose recording is not in the folder, and its file name."""
    return {
        name: trace
        for name in names
        if (trace := LOADS[name].trace) is not None and (traces is None or not (traces / trace).exists())
    }


def run(cell: Cell) -> Outcome:
    """The figures of one cell."""
    load = LOADS[cell.load]
    workload = workload_of(cell.load, cell.rate or load.rate, cell.seed, cell.traces)
    setting = Setting(hardware=load.hardware, slowdowns=load.slowdowns, seed=cell.seed)
    if cell.policy in SCRAPES_FAST:
        setting = replace(setting, scrape_s=0.05)
    if cell.policy in WANTS_KV_EVENTS:
        setting = replace(setting, kv_events_s=0.03)
    setting = replace(setting, **cell.setting)
    records = Simulation(workload, setting, lambda random: _policy(cell, load.hardware, random)).run().records
    return Outcome(cell, figures(records, load.promise))


def workload_of(name: str, rate: float, seed: int, traces: Path | None) -> Workload:
    """A load's requests. Raises OSError without its recording."""
    trace = LOADS[name].trace
    if trace is None:
        make = {"chat8": chat, "tool8": tool, "drift8": drift}[name]
        return make(Shape(9_000, rate, seed))
    path = (traces or Path()) / trace
    if trace == CONVERSATION:
        return faster(read_conversation(path, seed), rate)
    if trace == SYNTHETIC:
        # Other seeds are the same recording at slightly other speeds.
        return faster(read_mooncake(path, seed=seed), rate * (1 + 0.01 * (seed - 1)))
    return read_sessions(path, copies=24, sessions_per_s=rate, seed=seed)


def _policy(cell: Cell, hardware: Hardware, random: Random) -> Policy:
    if cell.policy == OURS:
        options = {"offload_tokens": hardware.host_tokens, **cell.options}
        return ExpectedLatency(ExpectedLatency.Options(**options), random)
    return PEERS[cell.policy](random, hardware.kv_tokens + hardware.host_tokens)


def pooled_hit(workload: Workload, hardware: Hardware, replicas: int) -> float:
    """The hit share of one LRU cache as large as all replicas' together: what no router can beat by much."""
    capacity = replicas * (hardware.kv_tokens + hardware.host_tokens) // workload.block_tokens
    cache: OrderedDict[int, None] = OrderedDict()
    asks = sorted((each.turns[0] for each in workload.conversations), key=lambda ask: ask.at)
    hit = total = 0.0
    for number, ask in enumerate(asks):
        blocks = ask.prompt.blocks
        depth = next((place for place, block in enumerate(blocks) if block not in cache), len(blocks))
        if number >= 0.15 * len(asks):
            hit += min(depth * workload.block_tokens, ask.prompt.tokens)
            total += ask.prompt.tokens
        for block in reversed(blocks):
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > capacity:
            cache.popitem(last=False)
    return hit / max(1.0, total)
