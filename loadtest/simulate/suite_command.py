"""`turnout bench-routing`: the goals of routing, goal by goal, as tables."""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from multiprocessing import Pool
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtest.peers import PEERS
from loadtest.simulate.figures import Figures
from loadtest.simulate.fleet import Incident
from loadtest.simulate.suite import LOADS, OURS, SIX, Cell, Outcome, missing, pooled_hit, run, workload_of

BEST_PEERS = ("preble", "lmetric_sized", "smg_cache_aware", "llm_d_affinity", "llm_d_default", "mooncake",
              "aibrix", "dynamo", "vllm_router_cache_aware", "prefix_hash", "least_requests")  # fmt: skip
_GOODPUT = 0.9
_STEPS = 6

Bench = Callable[["Runner"], None]
Variants = Mapping[str, Mapping[str, object]]
"""Changes to a load's setting, by what to call them."""


class Runner:
    """Runs cells on all cores and prints tables; what needs an absent recording is left out."""

    def __init__(self, console: Console, traces: Path | None, seeds: int, peers: Sequence[str]) -> None:
        self.console = console
        self.traces = traces
        self.seeds = range(1, seeds + 1)
        self.peers = peers

    def loads(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in missing(names, self.traces)]

    def run(self, cells: Iterable[Cell]) -> list[Outcome]:
        asked = [replace(cell, traces=self.traces) for cell in cells]
        with Pool(os.cpu_count()) as pool, Progress(console=self.console, transient=True) as progress:
            task = progress.add_task("simulating", total=len(asked))
            outcomes = []
            for outcome in pool.imap(run, asked):
                outcomes.append(outcome)
                progress.advance(task)
        return outcomes

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(title=title, title_justify="left", header_style="dim")
        for place, column in enumerate(columns):
            table.add_column(column, justify="left" if place == 0 else "right")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def misses(runner: Runner) -> None:
    """Share of requests that break the promise, on six workloads; ours beside the best single peer."""
    loads = runner.loads(SIX)
    policies = (OURS, *runner.peers)
    missed: dict[tuple[str, str], list[float]] = {}
    for outcome in runner.run(
        Cell(label="", load=load, policy=policy, seed=seed)
        for policy in policies
        for load in loads
        for seed in runner.seeds
    ):
        key = outcome.cell.policy, outcome.cell.load
        missed.setdefault(key, []).append(100 * (1 - outcome.figures.goodput))
    means = {policy: _mean(_mean(missed[policy, load]) for load in loads) for policy in policies}
    best = min(runner.peers, key=means.__getitem__)
    rows = [
        [policy, f"{means[policy]:.2f}", *(f"{_mean(missed[policy, load]):.1f}" for load in loads)]
        for policy in sorted(policies, key=means.__getitem__)
    ]
    ratio = f"{means[OURS] / means[best]:.2f}x the best single peer ({best})"
    runner.table(f"G1  promises broken, %: ours {ratio}", ("policy", "mean", *loads), rows)


def capacity(runner: Runner) -> None:
    """The highest rate at which 90 % of requests keep the promise, by bisection; times the load's rate."""
    loads = runner.loads((*SIX, "tool8"))
    policies = (OURS, *runner.peers)
    low = {(policy, load): 0.25 for policy in policies for load in loads}
    high = dict.fromkeys(low, 2.5)
    for _ in range(_STEPS):
        tried = {key: (low[key] * high[key]) ** 0.5 for key in low}
        for outcome in runner.run(
            Cell(label="", load=load, policy=policy, rate=LOADS[load].rate * tried[policy, load])
            for policy, load in low
        ):
            key = outcome.cell.policy, outcome.cell.load
            (low if outcome.figures.goodput >= _GOODPUT else high)[key] = tried[key]
    rows = [[policy, *(f"{low[policy, load]:.2f}" for load in loads)] for policy in policies]
    for row, policy in zip(rows[1:], runner.peers, strict=True):
        row.append(
            f"{statistics.geometric_mean([low[OURS, load] / low[policy, load] for load in loads]):.2f}x"
        )
    rows[0].append("")
    best = [max(low[policy, load] for policy in runner.peers) for load in loads]
    of_best = (f"{low[OURS, load] / peer:.2f}x" for load, peer in zip(loads, best, strict=True))
    rows.append(["ours / best peer", *of_best, ""])
    title = "G2, G3  capacity at 90 % of promises kept, in loads (0.25 to 2.5)"
    runner.table(title, ("policy", *loads, "ours / it"), rows)


def workers(runner: Runner) -> None:
    """Several router processes that tell each other late, or lose some of it, or all."""
    variants: Variants = {
        "one process": {},
        "4, 5 ms": {"workers": 4},
        "4, 20 ms": {"workers": 4, "gossip_s": 0.02},
        "4, 5 ms, 1 % lost, one killed": {"workers": 4, "gossip_loss": 0.01, "killed_worker_at": 100.0},
        "4, told nothing": {"workers": 4, "gossip_s": None},
    }
    _variants(runner, "G4  goodput with several workers, %", variants, ("conv8", "synth8", "agent8"))


def metrics_age(runner: Runner) -> None:
    """Scrapes that are late or absent."""
    variants: Variants = {
        "50 ms": {"scrape_s": 0.05},
        "1 s": {},
        "10 s": {"scrape_s": 10.0},
        "30 s": {"scrape_s": 30.0},
        "never": {"scrape_s": None},
        "no cached tokens told": {"reports_cached": False},
    }
    _variants(runner, "G6  goodput by age of the engines' metrics, %", variants, SIX)


def incidents(runner: Runner) -> None:
    """Restarts, silent flushes, a replica that becomes slow; four more that join under overload."""
    twelve = tuple(1.0 for _ in range(12))
    joined = tuple(Incident(150.0, "join", index) for index in range(8, 12))
    variants: Variants = {
        "nothing": {},
        "cold restart of 1 in 8": {"incidents": (Incident(150.0, "restart", 3),)},
        "silent flush of 1 in 8": {"incidents": (Incident(150.0, "silent_flush", 3),)},
        "1 in 8 becomes 4x slower": {"incidents": (Incident(150.0, "slow", 3, 4.0),)},
        "8 to 12": {"slowdowns": twelve, "incidents": joined},
    }
    _variants(runner, "G7  goodput with incidents at 150 s, %", variants, ("conv8", "synth8", "tool8"))


def pooled(runner: Runner) -> None:
    """Hits beside one cache of the whole fleet's size."""
    loads = runner.loads(("conv8", "synth8", "tool8", "drift8"))
    rows = []
    for outcome in runner.run(Cell(label="", load=load, policy=OURS) for load in loads):
        load = LOADS[outcome.cell.load]
        workload = workload_of(outcome.cell.load, load.rate, 1, runner.traces)
        bound = pooled_hit(workload, load.hardware, len(load.slowdowns))
        hit = outcome.figures.hit
        rows.append([outcome.cell.load, f"{hit:.3f}", f"{bound:.3f}", f"{hit / bound:.2f}x"])
    runner.table("G5  prompt tokens found in caches", ("load", "ours", "pooled LRU", "ratio"), rows)


def overload(runner: Runner) -> None:
    """A tenth more than the loads, which are at the best peers' limits already."""
    loads = runner.loads((*SIX, "tool8"))
    policies = (OURS, *runner.peers)
    outcomes = runner.run(
        Cell(label="", load=load, policy=p, rate=1.1 * LOADS[load].rate) for p in policies for load in loads
    )
    good = {(o.cell.policy, o.cell.load): 100 * o.figures.goodput for o in outcomes}
    rows = [[p, *(f"{good[p, load]:.1f}" for load in loads)] for p in policies]
    runner.table("G8  goodput at 1.1 times the load, %", ("policy", *loads), rows)


def _variants(runner: Runner, title: str, variants: Variants, names: Sequence[str]) -> None:
    loads = runner.loads(names)
    found: dict[tuple[str, str], list[Figures]] = {}
    for outcome in runner.run(
        Cell(label=label, load=load, policy=OURS, seed=seed, setting=setting)
        for label, setting in variants.items()
        for load in loads
        for seed in runner.seeds
    ):
        found.setdefault((outcome.cell.label, outcome.cell.load), []).append(outcome.figures)
    runner.table(
        title, ("", *loads), ([label, *(_shown(found[label, load]) for load in loads)] for label in variants)
    )


def _shown(runs: Sequence[Figures]) -> str:
    return f"{100 * _mean(run.goodput for run in runs):.1f} (hit {_mean(run.hit for run in runs):.2f})"


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


GOALS: Mapping[str, Bench] = {
    "G1": misses,
    "G2": capacity,
    "G4": workers,
    "G5": pooled,
    "G6": metrics_age,
    "G7": incidents,
    "G8": overload,
}


@click.command("bench-routing")
@click.option(
    "--goals", default="G1,G4,G5,G6,G7,G8", show_default=True, help=f"Which, of {', '.join(GOALS)}."
)
@click.option(
    "--traces",
    type=click.Path(path_type=Path),
    envvar="TURNOUT_TRACES",
    help="Folder of the recordings; also from TURNOUT_TRACES.",
)
@click.option("--seeds", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option("--peers", default=",".join(BEST_PEERS), help="Which, comma-separated; `all` for every one.")
def bench_routing(goals: str, traces: Path | None, seeds: int, peers: str) -> None:
    """The default policy beside other routers' rules, under virtual time: the goals of routing as tables.

    Without the recordings only made traffic is simulated. They are in the repositories kvcache-ai/Mooncake
    (FAST25-release/traces) and LMCache/lmcache-agent-trace.

    \b
    Example:
      turnout bench-routing --traces ~/traces --goals G1,G4 --seeds 3
    """
    wanted = [name.strip() for name in goals.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in GOALS]:
        raise click.UsageError(f"unknown goal {unknown[0]!r}; there are {', '.join(GOALS)}")
    chosen = list(PEERS) if peers == "all" else [name.strip() for name in peers.split(",") if name.strip()]
    if strange := [name for name in chosen if name not in PEERS]:
        raise click.UsageError(f"unknown peer {strange[0]!r}; there are {', '.join(PEERS)}")
    console = Console()
    if not console.is_terminal:
        console.width = 160
    for name, file in missing(list(LOADS), traces).items():
        console.print(f"left out: {name}, for want of {file}; see --help", style="yellow")
    runner = Runner(console, traces, seeds, chosen)
    for name in wanted:
        GOALS[name](runner)
