"""`turnout bench-real-vllm`: routing beside other routers', in front of real vLLM replicas."""

import dataclasses
import random
from pathlib import Path
from typing import TypedDict, Unpack

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.bench.candidates import candidates_named
from loadtest.bench.peers import ensure_peers, peers_dir_option
from loadtest.bench.processes import StartError
from loadtest.bench.report import TABLE_WIDTH
from loadtest.real_vllm.fleet import Fleet
from loadtest.real_vllm.model import make
from loadtest.real_vllm.report import json_report, print_report
from loadtest.real_vllm.run import Plan, Results, measure
from loadtest.real_vllm.workloads import workloads_named

_CANDIDATES = "turnout:expected_latency,turnout:round_robin,vllm-router:cache_aware,sglang-router:cache_aware"


class Options(TypedDict):
    """The command's options, as click hands them over."""

    vllm: Path
    model_dir: Path
    workloads: str
    candidates: str
    rounds: int
    blocks: int
    cores_each: float | None
    quick: bool
    json_path: Path | None
    peers_dir: Path
    seed: int | None


@click.command(name="bench-real-vllm")
@click.option(
    "--vllm",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path(".venv-vllm/bin/vllm"),
    show_default=True,
    help="vLLM's executable, of a build for the CPU.",
)
@click.option(
    "--model-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/bench-model"),
    show_default=True,
    help="The random model; made when absent.",
)
@click.option("--workloads", default="chat,shared", show_default=True, help="Which, comma-separated.")
@click.option(
    "--candidates", default=_CANDIDATES, show_default=True, help="Rows of `turnout bench`, comma-separated."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--blocks",
    type=click.IntRange(130),
    default=350,
    show_default=True,
    help="Blocks of 32 tokens that one replica's cache holds.",
)
@click.option(
    "--cores-each",
    type=click.FloatRange(0.05),
    help="A replica's share of a core, by control groups: then an idle one is idle capacity.",
)
@click.option("--quick", is_flag=True, help="A fraction of the requests: to see that it works.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write every run here."
)
@peers_dir_option
@click.option("--seed", type=int, help="Draws the texts; default: other ones each time.")
def bench_real_vllm(**options: Unpack[Options]) -> None:
    """Prefix hits and first tokens in front of four real vLLM replicas, beside vllm-router and sglang-router.

    The model is random and small, and one replica's cache holds a third of what is asked for: the figures
    tell where requests went and what was found there, not how fast vLLM is. About fifteen minutes, 10 GB of
    memory.

    \b
    Example:
      turnout bench-real-vllm --vllm .venv-vllm/bin/vllm --workloads chat
    """
    console = Console()
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    try:
        plan = _plan(options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        results = _measure(console, plan)
    except (StartError, TimeoutError) as error:
        raise click.ClickException(str(error)) from error
    print_report(console, plan, results)
    if options["json_path"]:
        options["json_path"].write_bytes(json_report(plan, results))
    if not results.samples:
        raise SystemExit(1)


def _plan(options: Options) -> Plan:
    seed = options["seed"]
    workloads = workloads_named(options["workloads"])
    return Plan(
        workloads=tuple(w.smaller() for w in workloads) if options["quick"] else workloads,
        candidates=candidates_named(options["candidates"]),
        rounds=options["rounds"],
        peers=options["peers_dir"],
        fleet=Fleet(
            options["vllm"], options["model_dir"], blocks=options["blocks"], cores_each=options["cores_each"]
        ),
        seed=random.SystemRandom().randrange(2**32) if seed is None else seed,
    )


def _measure(console: Console, plan: Plan) -> Results:
    make(plan.fleet.model)
    refused = ensure_peers(plan.peers, dict.fromkeys(c.package for c in plan.candidates if c.package))
    able = tuple(c for c in plan.candidates if c.package not in refused)
    left_out = {c.name: refused[c.package] for c in plan.candidates if c.package in refused}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=1, transient=True) as progress:
        task = progress.add_task("", total=plan.rounds * len(plan.workloads) * len(able))
        results = measure(
            dataclasses.replace(plan, candidates=able),
            tell=lambda text: progress.update(task, description=text),
            advance=lambda: progress.advance(task),
        )
    return Results(results.samples, left_out | results.skipped)
