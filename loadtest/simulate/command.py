"""`turnout simulate`: a trace through the policies of a configuration, and of another one beside it."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Unpack

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loadtest.simulate.asked import Asked, workload_of, workload_options
from loadtest.simulate.contender import Contender, Result, run
from loadtest.simulate.contestants import rival
from loadtest.simulate.hardware import HARDWARE, TPOT_SLO_S
from loadtest.simulate.html import page
from loadtest.simulate.plan import Plan, contender_of
from loadtest.simulate.rehearsal.command import (
    Rehearsing,
    asked_for,
    rehearsal_asked_for,
    rehearsal_options,
    show,
)
from loadtest.simulate.rehearsal.run import NothingArrives, rehearse
from loadtest.simulate.report import TABLE_WIDTH, json_report, notes, print_report
from loadtest.simulate.results import Served, Slo
from loadtest.simulate.workload import Workload
from router.commands.configuration import load_or_exit

_GENERATED_CALLS = 10_000
_TOLD_EVERY = 256
"""Calls from one look at the progress to the next."""


class Options(Asked, Rehearsing):
    """The command's options, as click hands them over."""

    profile: str
    host_tokens: int
    replicas: int | None
    slowdowns: str
    workers: int | None
    scrape_interval_s: float
    gossip_ms: float
    no_gossip: bool
    gossip_loss: float
    kv_events_ms: float | None
    faults: Sequence[str]
    ttft_slo_s: float
    tpot_slo_ms: float | None


_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--config", type=_FILE, required=True, help="Its policy, replicas and workers are simulated.")
@click.option(
    "--against", metavar="FILE|POLICY", help="Another configuration, or a policy: ours, or another router's."
)
@click.option("--model", help="Which of its models, where there are several.")
@rehearsal_options
@workload_options
@click.option(
    "--calls", type=click.IntRange(1), help=f"Only the first so many; {_GENERATED_CALLS:,} if generated."
)
@click.option("--profile", type=click.Choice(list(HARDWARE)), default="8b-h100", show_default=True)
@click.option("--host-tokens", type=click.IntRange(0), default=0, help="KV tokens in each host's memory too.")
@click.option("--replicas", type=click.IntRange(1), help="So many, of weight 1, instead of the configured.")
@click.option("--slowdowns", default="1", help="Step times of the replicas in turn, such as 1,1,2,4.")
@click.option("--workers", type=click.IntRange(1), help="Router processes; default: as configured.")
@click.option(
    "--scrape-interval-s", type=click.FloatRange(0), default=1.0, show_default=True, help="0: no metrics."
)
@click.option(
    "--gossip-ms", type=click.FloatRange(0), default=5.0, show_default=True, help="From worker to worker."
)
@click.option("--no-gossip", is_flag=True, help="Workers know nothing of each other.")
@click.option("--gossip-loss", type=click.FloatRange(0, 1), default=0.0, help="Share of messages lost.")
@click.option("--kv-events-ms", type=click.FloatRange(0), help="Engines tell of their caches, so late.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="WHAT@SECONDS:WHO",
    help="restart@600:2, flush@600:2, slow@600:2, scale@600:4 (how many), crash@600:0 (worker).",
)
@click.option("--ttft-slo-s", type=click.FloatRange(0), default=2.0, show_default=True)
@click.option("--tpot-slo-ms", type=click.FloatRange(0), help="Default: 50, with the slower profiles 100.")
@click.option("--html", "html_path", type=_FILE, help="Draw the results into this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def simulate(**options: Unpack[Options]) -> None:
    """Replay a trace through the real policies under virtual time, on simulated replicas.

    Policies, options, replicas and weights come from the configuration. Traces are Mooncake's form, GMI's,
    sessions of text as LMCache's agent traces, or this router's own access log. With --release a canary
    climbs on the trace as the configuration says, with the defects that it is given.

    \b
    Example:
      turnout simulate --config turnout.toml --against new.toml --trace conversation_trace.jsonl --speed 2
      turnout simulate --config turnout.toml --release llama-8b@v2 --defect errors=0.1 --trace access.log
    """
    rehearses = asked_for(options)
    workload = workload_of(options, _GENERATED_CALLS)
    slo = _slo(options)
    if rehearses:
        _rehearse(options, workload, slo)
    else:
        _compare(options, workload, slo)


def _rehearse(options: Options, workload: Workload, slo: Slo) -> None:
    console = _console(options)
    try:
        plan = rehearsal_asked_for(options, _plan(options))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with _progress(console) as progress:
        task = progress.add_task(f"{plan.model}@{plan.version}", total=len(workload))
        try:
            found = rehearse(plan, workload, slo, _teller(progress, task))
        except NothingArrives as error:
            raise click.UsageError(str(error)) from error
    show(console, plan, found, slo, options, _subtitle(options, workload))


def _compare(options: Options, workload: Workload, slo: Slo) -> None:
    try:
        contenders = _contenders(options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    console = _console(options)
    results = _run_with_progress(console, contenders, workload, slo)
    if not all(result.served for result in results):
        raise click.ClickException("every request is longer than a replica's memory; see --profile")
    if options["as_json"]:
        settings = {key: str(value) for key, value in options.items() if value is not None}
        click.echo(json_report(results, slo, settings), nl=False)
    else:
        print_report(console, results, slo)
    if options["html_path"]:
        title = " against ".join(result.name for result in results)
        text = page(title, _subtitle(options, workload), results, slo, notes(results, slo))
        options["html_path"].write_text(text, encoding="utf-8")


def _console(options: Options) -> Console:
    console = Console(stderr=options["as_json"])
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    return console


def _slo(options: Options) -> Slo:
    tpot_ms = options["tpot_slo_ms"]
    return Slo(options["ttft_slo_s"], TPOT_SLO_S[options["profile"]] if tpot_ms is None else tpot_ms / 1e3)


def _plan(options: Options) -> Plan:
    return Plan(
        profile=options["profile"],
        host_tokens=options["host_tokens"],
        replicas=options["replicas"],
        slowdowns=tuple(float(part) for part in options["slowdowns"].split(",")),
        workers=options["workers"],
        scrape_interval_s=options["scrape_interval_s"] or None,
        gossip_s=None if options["no_gossip"] else options["gossip_ms"] / 1e3,
        gossip_loss=options["gossip_loss"],
        kv_events_s=None if options["kv_events_ms"] is None else options["kv_events_ms"] / 1e3,
        faults=tuple(options["faults"]),
        seed=options["seed"],
    )


def _contenders(options: Options) -> list[Contender]:
    plan, against = _plan(options), options["against"]
    is_file = against is not None and Path(against).is_file()
    paths = [options["config"], Path(against)] if against is not None and is_file else [options["config"]]
    alike = len({path.stem for path in paths}) < len(paths)
    contenders = [
        contender_of(load_or_exit(path), str(path) if alike else path.stem, options["model"], plan)
        for path in paths
    ]
    if against is not None and not is_file:
        contenders.append(rival(against, contenders[0]))
    return contenders


def _run_with_progress(
    console: Console, contenders: Sequence[Contender], workload: Workload, slo: Slo
) -> list[Result]:
    with _progress(console) as progress:
        return [_run(contender, workload, slo, progress) for contender in contenders]


def _run(contender: Contender, workload: Workload, slo: Slo, progress: Progress) -> Result:
    tell = _teller(progress, progress.add_task(contender.name, total=len(workload)))

    def watch(_served: Served) -> bool:
        tell()
        return False

    return run(contender, workload, slo, watch)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, refresh_per_second=4, transient=True)


def _teller(progress: Progress, task: TaskID) -> Callable[[], None]:
    """To be called after each call; the bar hears of every so many."""
    calls = count(1)

    def tell() -> None:
        if next(calls) % _TOLD_EVERY == 0:
            progress.advance(task, _TOLD_EVERY)

    return tell


def _subtitle(options: Options, workload: Workload) -> str:
    replicas = f", {options['replicas']} replicas" if options["replicas"] else ""
    faults = f", {', '.join(options['faults'])}" if options["faults"] else ""
    return (
        f"{len(workload):,} requests of {workload.name} at speed {options['speed']:g}, "
        f"profile {options['profile']}{replicas}{faults}, seed {options['seed']}"
    )
