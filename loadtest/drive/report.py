"""The two runs as a table for people and as JSON for everybody else."""

from dataclasses import asdict
from math import isnan
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.drive.agreement import HIT_POINTS, TTFT_SHARE, Agreement
from loadtest.drive.run import Driven
from loadtest.simulate.compare import FIGURES
from loadtest.simulate.contender import Result


def print_comparison(console: Console, simulated: Result, driven: Driven, agreement: Agreement) -> None:
    """A column a run, a row a figure, and what is to be said of them."""
    title = f"{simulated.name}, {simulated.summary.requests:,} requests after the warm-up"
    table = Table(title=title, title_justify="left")
    for heading in ("", "simulated", "driven", "driven against simulated"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    told = {
        "cache hits": f"{agreement.hit_points:+.2f} points",
        "TTFT p50": f"x {agreement.ttft_p50_ratio:.3f}",
        "TTFT p90": f"x {agreement.ttft_p90_ratio:.3f}",
    }
    for figure in FIGURES:
        values = (figure.of(one.summary) for one in (simulated, driven.result))
        table.add_row(figure.title, *map(figure.show, values), told.get(figure.title, ""))
    for replica, (one, other) in agreement.loads.items():
        change = f"{100 * (other - one):+.1f} points"
        table.add_row(f"load of {replica}", f"{one:.1%}", f"{other:.1%}", change)
    console.print(table)
    for line in notes(driven, agreement):
        console.print(line, markup=False, highlight=False)


def notes(driven: Driven, agreement: Agreement) -> list[str]:
    """The verdict, and what a reader must know beside it."""
    late, summary = driven.lateness, driven.result.summary
    lateness = ", ".join(
        f"{one_s * 1e3:.1f} ms ({name})"
        for name, one_s in (("p50", late.p50_s), ("p99", late.p99_s), ("most", late.most_s))
    )
    wanted = f"hits within {HIT_POINTS:g} points, median TTFT within {TTFT_SHARE:.0%}"
    return [
        f"simulated and driven: {agreement.word} (wanted: {wanted})",
        f"driven for {driven.result.wall_s:.0f} s of real time, {summary.failed:,} requests failed",
        f"{driven.on_the_way_s * 1e3:.1f} ms of the driven mean TTFT were not in the engines",
        f"{late.steps:,} engine steps, late by {lateness}; {late.lost:,} engine clocks put back",
    ]


def json_comparison(
    simulated: Result, driven: Driven, agreement: Agreement, settings: dict[str, Any]
) -> bytes:
    """Settings, both summaries, the agreement and the lateness, indented; null where nothing was measured."""
    document = {
        "settings": settings,
        "simulated": _finite(asdict(simulated.summary)),
        "driven": _finite(asdict(driven.result.summary)),
        "agreement": _finite(asdict(agreement)),
        "lateness": _finite(driven.lateness._asdict()),
        "on_the_way_s": driven.on_the_way_s,
        "wall_s": driven.result.wall_s,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and isnan(value) else value for key, value in values.items()
    }
