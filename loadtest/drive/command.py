"""`turnout drive`: one scenario simulated and driven, side by side."""

from pathlib import Path
from typing import Unpack

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.drive.agreement import Word, agreement_of
from loadtest.drive.evidence import Evidence, by_chance, replayed
from loadtest.drive.report import json_comparison, print_comparison
from loadtest.drive.run import Driven, Subject, drive
from loadtest.drive.scenario import drivable
from loadtest.router_process import RouterDidNotStart
from loadtest.simulate.asked import Asked, workload_of, workload_options
from loadtest.simulate.contender import run
from loadtest.simulate.hardware import HARDWARE, TPOT_SLO_S
from loadtest.simulate.plan import Plan, contender_of, model_of
from loadtest.simulate.report import TABLE_WIDTH
from loadtest.simulate.results import Slo
from loadtest.simulate.workload import Workload
from router.commands.configuration import load_or_exit

_CALLS = 300
_GOSSIP_S = 0.005


class Options(Asked):
    """The command's options, as click hands them over."""

    config: Path
    model: str | None
    profile: str
    replicas: int | None
    slowdowns: str
    ttft_slo_s: float
    as_json: bool


@click.command("drive")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Its policy, replicas and workers are simulated, and driven.",
)
@click.option("--model", help="Which of its models, where there are several.")
@workload_options
@click.option(
    "--calls", type=click.IntRange(1), default=_CALLS, show_default=True, help="Only the first so many."
)
@click.option("--profile", type=click.Choice(list(HARDWARE)), default="8b-a10g", show_default=True)
@click.option("--replicas", type=click.IntRange(1), help="So many, of weight 1, instead of the configured.")
@click.option("--slowdowns", default="1", help="Step times of the replicas in turn, such as 1,1,2,4.")
@click.option("--ttft-slo-s", type=click.FloatRange(0), default=2.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def drive_(**options: Unpack[Options]) -> None:
    """Try the simulator: one scenario under virtual time, and over real sockets in real time.

    Simulated vLLM engines with the same scheduler, cache and latency listen on loopback, `turnout serve` runs
    in front of them, and clients send the workload as text. Ends with 1 if the two do not agree, or if this
    machine was too slow to tell.

    \b
    Example:
      turnout drive --config turnout.toml --generator gmi --speed 0.5 --replicas 4
    """
    try:
        subject = _subject(options)
        workload = drivable(workload_of(options, _CALLS), subject.contender.setup)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    slo = Slo(options["ttft_slo_s"], TPOT_SLO_S[options["profile"]])
    console = Console(stderr=options["as_json"])
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    evidence = _evidence(console, subject, workload, slo)
    step_s = min(one.hardware.latency.base_s * one.slowdown for one in subject.contender.setup.replicas)
    agreement = agreement_of(evidence.simulated, evidence.driven, step_s)
    if options["as_json"]:
        settings = {key: str(value) for key, value in options.items() if value is not None}
        click.echo(json_comparison(evidence, agreement, settings), nl=False)
    else:
        print_comparison(console, evidence, agreement)
    if agreement.word is not Word.AGREE:
        raise SystemExit(1)


def _subject(options: Options) -> Subject:
    """Raises ValueError."""
    config, name = load_or_exit(options["config"]), options["config"].stem
    plan = Plan(
        profile=options["profile"],
        host_tokens=0,
        replicas=options["replicas"],
        slowdowns=tuple(float(part) for part in options["slowdowns"].split(",")),
        workers=None,
        scrape_interval_s=config.scrape.interval_s,
        gossip_s=_GOSSIP_S,
        gossip_loss=0.0,
        kv_events_s=None,
        faults=(),
        seed=options["seed"],
    )
    contender = contender_of(config, name, options["model"], plan)
    return Subject(contender, config, model_of(config, name, options["model"]).policy)


def _evidence(console: Console, subject: Subject, workload: Workload, slo: Slo) -> Evidence:
    driven, contender = _drive_with_progress(console, subject, workload, slo), subject.contender
    return Evidence(
        run(contender, workload, slo),
        driven,
        replayed(contender, workload, slo, driven.result.served),
        by_chance(contender, workload, slo),
    )


def _drive_with_progress(console: Console, subject: Subject, workload: Workload, slo: Slo) -> Driven:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=1, transient=True) as progress:
        task = progress.add_task("driving", total=len(workload))
        try:
            return uvloop.run(drive(subject, workload, slo, lambda: progress.advance(task)))
        except RouterDidNotStart as error:
            raise click.ClickException(str(error)) from error
