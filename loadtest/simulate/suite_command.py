"""`turnout bench-routing`: routing beside its peers under virtual time, goal by goal."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import TypedDict, Unpack

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtest.simulate.contestants import ORACLE, contestants
from loadtest.simulate.goals import GOALS
from loadtest.simulate.json_lines import TraceError
from loadtest.simulate.pool import Bench, Pool
from loadtest.simulate.report import TABLE_WIDTH
from loadtest.simulate.scenarios import SCENARIOS, Library
from loadtest.simulate.section import Asking, Field, Section

_QUICK_CALLS = 2_500
_STEPS = 7
_QUICK_STEPS = 5


class Options(TypedDict):
    """The command's options, as click hands them over."""

    traces: Path | None
    goals: str
    subject: str
    policies: str
    table: str
    scenarios: str
    seeds: int | None
    quick: bool
    processes: int
    json_path: Path | None


@click.command("bench-routing")
@click.option(
    "--traces",
    envvar="TURNOUT_TRACES",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of traces; what is not in it is left out and named. Default: $TURNOUT_TRACES.",
)
@click.option("--goals", default=",".join(GOALS), show_default=True, help="Which, comma-separated.")
@click.option("--subject", default="expected_latency", show_default=True, help="Whose goals they are.")
@click.option("--policies", default="", help="Its peers, comma-separated; default: all there are.")
@click.option("--table", default="", help="MODULE:NAME of more policies; see `contestants`.")
@click.option("--scenarios", default=",".join(SCENARIOS), show_default=True, help="Which, comma-separated.")
@click.option("--seeds", type=click.IntRange(1), help="Runs of each fixed load; default 3, with --quick 1.")
@click.option("--quick", is_flag=True, help=f"{_QUICK_CALLS:,} calls a workload: to see that it works.")
@click.option("--processes", type=click.IntRange(1), default=os.cpu_count() or 1, help="Default: one a core.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write tables here."
)
def bench_routing(**options: Unpack[Options]) -> None:
    """Routing policies beside each other under virtual time: the goals of routing, as tables.

    Generated workloads need nothing. For the others get Mooncake's FAST'25 traces (conversation_trace.jsonl,
    synthetic_trace.jsonl: github.com/kvcache-ai/Mooncake) and the agent sessions (miniswe:
    github.com/LMCache/lmcache-agent-trace) into one folder, compressed or not.

    \b
    Example:
      turnout bench-routing --traces traces/ --goals G1,G5
    """
    bench = Bench(options["traces"], _QUICK_CALLS if options["quick"] else None, options["table"])
    try:
        field = _field(options, bench)
        goals = {name: GOALS[name] for name in _listed(options["goals"], GOALS, "--goals")}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    console = Console()
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    _say_what_is_missing(console, options, bench)
    sections: list[Section] = []
    try:
        with Pool(bench, options["processes"]) as pool:
            for name, goal in goals.items():
                sections.append(_asked(console, pool, name, goal(field)))
                _print(console, sections[-1])
    except TraceError as error:
        raise click.ClickException(str(error)) from error
    if options["json_path"]:
        document = msgspec.json.encode({"subject": field.subject, "seeds": field.seeds, "sections": sections})
        options["json_path"].write_bytes(msgspec.json.format(document, indent=1) + b"\n")


def _field(options: Options, bench: Bench) -> Field:
    """Raises ValueError."""
    try:
        known = contestants(bench.table)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--table {bench.table}: {error}") from error
    subject = options["subject"]
    _listed(subject, known, "--subject")
    peers = [name for name, one in known.items() if one.is_peer and name != subject]
    library = Library(bench.traces)
    wanted = _listed(options["scenarios"], SCENARIOS, "--scenarios")
    there = [name for name in wanted if library.missing(SCENARIOS[name].source) is None]
    if not there:
        raise ValueError("none of these scenarios has its trace; --help says where to get them")
    quick = options["quick"]
    return Field(
        subject,
        _listed(options["policies"], known, "--policies") if options["policies"] else peers,
        ORACLE,
        there,
        tuple(range(options["seeds"] or (1 if quick else 3))),
        _QUICK_STEPS if quick else _STEPS,
    )


def _listed(text: str, known: Collection[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"{option}: there is no {name!r}; there are {', '.join(known)}")
    return names


def _say_what_is_missing(console: Console, options: Options, bench: Bench) -> None:
    library = Library(bench.traces)
    for name in _listed(options["scenarios"], SCENARIOS, "--scenarios"):
        file = library.missing(SCENARIOS[name].source)
        if file is not None:
            console.print(f"left out: {name}, for want of {file} (--help says where to get it)")


def _asked(console: Console, pool: Pool, name: str, goal: Asking) -> Section:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=1, transient=True) as progress:
        task = progress.add_task(name, total=0)
        try:
            jobs = next(goal)
            while True:
                progress.update(task, total=(progress.tasks[0].total or 0) + len(jobs))
                jobs = goal.send(pool.answers(jobs, lambda: progress.advance(task)))
        except StopIteration as ended:
            section: Section = ended.value
            return section


def _print(console: Console, section: Section) -> None:
    table = Table(title=section.title, title_justify="left")
    for number, heading in enumerate(section.headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in section.rows:
        table.add_row(*row)
    console.print(table)
    for verdict in section.verdicts:
        word = {True: "holds", False: "does not hold", None: "not measured"}[verdict.holds]
        console.print(
            f"  {verdict.what}: {verdict.measured}, wanted {verdict.wanted}: {word}", highlight=False
        )
    console.print()
