"""`turnout bench`: the router beside its peers on this machine."""

import dataclasses
import random
from pathlib import Path
from typing import TypedDict, Unpack

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from loadtest.bench.candidates import CANDIDATES, Candidate, candidates_named
from loadtest.bench.peers import ensure_peers, peers_dir_option
from loadtest.bench.processes import Cores
from loadtest.bench.report import TABLE_WIDTH, json_report, print_report
from loadtest.bench.run import Plan, Results, measure, shortened
from loadtest.bench.workloads import Workload, workloads_named

DEFAULT_ROUNDS = 5
QUICK_ROUNDS = 2


class Options(TypedDict):
    """The command's options, as click hands them over."""

    workloads: str
    candidates: str
    rounds: int | None
    window_s: float | None
    quick: bool
    with_litellm: bool
    json_path: Path | None
    peers_dir: Path
    seed: int | None


@click.command()
@click.option("--workloads", default="W1,W2,W3,W4,W5", show_default=True, help="Which, comma-separated.")
@click.option("--candidates", default="", help="Which, comma-separated; `vllm-router` is all its policies.")
@click.option(
    "--rounds", type=click.IntRange(1), help=f"Default {DEFAULT_ROUNDS}, with --quick {QUICK_ROUNDS}."
)
@click.option(
    "--window-s", type=click.FloatRange(0.2), help="Measured time of every run, instead of 2 or 3 s."
)
@click.option(
    "--quick", is_flag=True, help="Short windows, two rounds: to see that it works, not to compare."
)
@click.option("--with-litellm", is_flag=True, help="Measure the litellm proxy too.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write every run here."
)
@peers_dir_option
@click.option("--seed", type=int, help="Draws the orders of the candidates; default: another one each time.")
def bench(**options: Unpack[Options]) -> None:
    """Requests and SSE chunks per CPU-second of the router, beside vllm-router, sglang-router and nginx.

    Everything runs on this machine, over loopback: the router alone on one core, simulated vLLM replicas and
    the load client on another. Rounds are interleaved; read a ratio together with its spread.

    \b
    Example:
      turnout bench --workloads W1,W4 --candidates turnout,vllm-router
    """
    console = Console()
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    try:
        plan = _plan(options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if plan.cores.router == plan.cores.load:
        console.print("there is one core only: router and load share it, so the figures compare little")
    results = _measure_with_progress(console, plan)
    print_report(console, plan, results)
    if options["json_path"]:
        options["json_path"].write_bytes(json_report(plan, results))
    if not results.samples:
        raise SystemExit(1)


def _plan(options: Options) -> Plan:
    quick = options["quick"]
    seed = options["seed"]
    return Plan(
        workloads=tuple(_timed(w, options) for w in workloads_named(options["workloads"])),
        candidates=_chosen(options["candidates"], with_litellm=options["with_litellm"]),
        rounds=options["rounds"] or (QUICK_ROUNDS if quick else DEFAULT_ROUNDS),
        peers=options["peers_dir"],
        cores=Cores.of_this_machine(),
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
    )


def _timed(workload: Workload, options: Options) -> Workload:
    timed = shortened(workload) if options["quick"] else workload
    window_s = options["window_s"]
    return dataclasses.replace(timed, window_s=window_s) if window_s else timed


def _chosen(names: str, *, with_litellm: bool) -> tuple[Candidate, ...]:
    chosen = candidates_named(names) if names else tuple(c for c in CANDIDATES if c.default)
    litellm = candidates_named("litellm") if with_litellm else ()
    return chosen + tuple(c for c in litellm if c not in chosen)


def _measure_with_progress(console: Console, plan: Plan) -> Results:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=1, transient=True) as progress:
        total = plan.rounds * len(plan.workloads) * len(plan.candidates)
        task = progress.add_task("installing the peers", total=total)
        packages = dict.fromkeys(c.package for c in plan.candidates if c.package)
        refused = ensure_peers(plan.peers, packages)
        able = tuple(c for c in plan.candidates if c.package not in refused)
        results = measure(
            dataclasses.replace(plan, candidates=able),
            tell=lambda text: progress.update(task, description=text),
            advance=lambda runs: progress.advance(task, runs),
        )
    left_out = {c.name: refused[c.package] for c in plan.candidates if c.package in refused}
    return Results(results.samples, left_out | dict(results.skipped))
