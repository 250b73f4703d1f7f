"""`turnout bench-release`: how often releases are decided wrongly, and how soon rightly."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from time import perf_counter
from typing import Final, TypedDict, Unpack

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.release.cells import CELLS, Cell
from loadtest.release.cost import cost_us
from loadtest.release.report import TABLE_WIDTH, json_report, print_report, row
from loadtest.release.trial import Trial, run

_BATCH: Final = 5
"""Releases that a process runs before it tells."""


class Options(TypedDict):
    """The command's options, as click hands them over."""

    releases: int
    requests: int
    processes: int
    seed: int
    cells: Sequence[str]
    as_json: bool


@click.command("bench-release")
@click.option("--releases", type=click.IntRange(1), default=200, show_default=True, help="Of each cell.")
@click.option(
    "--requests", type=click.IntRange(1), default=100_000, show_default=True, help="Of a release at most."
)
@click.option("--processes", type=click.IntRange(1), default=os.cpu_count() or 1, help="Default: one a core.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same table.")
@click.option(
    "--cell", "cells", multiple=True, type=click.Choice(list(CELLS)), help="Only this one; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def bench_release(**options: Unpack[Options]) -> None:
    """Releases of generated requests, decided by the shipped analysis with its default options.

    Canaries that are as good as stable and must not be taken back; canaries that are worse and must be, soon;
    and what common rules would have done. One looks after every request, as the router does.

    \b
    Example:
      turnout bench-release --releases 2000 --cell "errors +10 points"
    """
    console = Console(stderr=options["as_json"])
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    cells = [CELLS[name] for name in options["cells"] or CELLS]
    began = perf_counter()
    trials = _all(console, cells, options)
    rows = [row(cell, trials[cell.name]) for cell in cells]
    cost = cost_us()
    if options["as_json"]:
        settings = {key: options[key] for key in ("releases", "requests", "seed")}
        click.echo(json_report(rows, {**settings, "microseconds_per_request": cost}), nl=False)
        return
    print_report(console, rows)
    costs = ", ".join(f"{microseconds:.1f} us at {percent} %" for percent, microseconds in cost.items())
    console.print(f"One request costs the analysis {costs}. Took {perf_counter() - began:.0f} s.")


def _all(console: Console, cells: Sequence[Cell], options: Options) -> dict[str, list[Trial]]:
    """In the order of the seeds, whichever process was first."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found: dict[str, list[Trial]] = {}
    pool = ProcessPoolExecutor(options["processes"], mp_context=get_context("spawn"))
    with pool, Progress(*columns, console=console, refresh_per_second=1, transient=True) as progress:
        for cell in cells:
            task = progress.add_task(cell.name, total=options["releases"])
            found[cell.name] = _cell(pool, cell, options, partial(progress.advance, task))
    return found


def _cell(pool: Executor, cell: Cell, options: Options, tell: Callable[[int], object]) -> list[Trial]:
    seeds = range(options["seed"], options["seed"] + options["releases"])
    batches = [seeds[at : at + _BATCH] for at in range(0, len(seeds), _BATCH)]
    asked: dict[Future[list[Trial]], int] = {
        pool.submit(_batch, cell, batch, options["requests"]): at for at, batch in enumerate(batches)
    }
    answers: dict[int, list[Trial]] = {}
    for future in as_completed(asked):
        answers[asked[future]] = future.result()
        tell(len(batches[asked[future]]))
    return [trial for at in range(len(batches)) for trial in answers[at]]


def _batch(cell: Cell, seeds: Sequence[int], requests: int) -> list[Trial]:
    return [run(cell, seed, requests) for seed in seeds]
