"""The options that say what is asked of a fleet; commands that simulate or drive have them in common."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypedDict

import click

from loadtest.simulate.generators import GENERATORS
from loadtest.simulate.json_lines import TraceError
from loadtest.simulate.traces import FORMS, form_of, read_trace
from loadtest.simulate.workload import Workload


class Asked(TypedDict):
    """These options, as click hands them over."""

    trace: Path | None
    form: str | None
    spread_s: float
    generator: str | None
    calls: int | None
    speed: float
    seed: int


_OPTIONS = (
    click.option("--trace", type=click.Path(exists=True, path_type=Path), help="What is asked, and when."),
    click.option("--form", type=click.Choice(FORMS), help="The trace's form; default: what it looks like."),
    click.option(
        "--spread-s",
        type=click.FloatRange(0),
        default=0.0,
        help="Move requests by up to so much: coarse stamps.",
    ),
    click.option(
        "--generator", type=click.Choice(list(GENERATORS)), help="Made-up traffic instead of a trace."
    ),
    click.option(
        "--speed",
        type=click.FloatRange(0, min_open=True),
        default=1.0,
        help="Arrivals so many times as fast.",
    ),
    click.option("--seed", type=int, default=0, show_default=True),
)


def workload_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a command with all of them but `--calls`, whose default is the command's."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def workload_of(options: Asked, generated_calls: int) -> Workload:
    """Raises click.UsageError."""
    trace, generator, calls = options["trace"], options["generator"], options["calls"]
    if (trace is None) == (generator is None):
        raise click.UsageError("one of --trace and --generator is needed")
    random = Random(options["seed"])
    if generator is not None:
        work = GENERATORS[generator](calls or generated_calls, random)
    else:
        work = _read(options, trace or Path(), random)
        work = work if calls is None else work.first(calls)
    if not len(work):
        raise click.UsageError(f"{work.name}: there is no request in it")
    return work.faster(options["speed"])


def _read(options: Asked, trace: Path, random: Random) -> Workload:
    try:
        return read_trace(trace, options["form"] or form_of(trace), random, spread_s=options["spread_s"])
    except TraceError as error:
        raise click.UsageError(str(error)) from error
