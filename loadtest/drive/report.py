"""The runs as a table for people and as JSON for everybody else."""

from dataclasses import asdict
from math import isnan
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.drive.agreement import HIT_POINTS, TTFT_SHARE, Agreement
from loadtest.drive.evidence import CHANCE_RUNS, CHANCE_S, Evidence
from loadtest.drive.pace import Lateness
from loadtest.simulate.compare import FIGURES


def print_comparison(console: Console, evidence: Evidence, agreement: Agreement) -> None:
    """A column a run, a row a figure, and what is to be said of them."""
    simulated, driven, replayed = evidence.simulated, evidence.driven.result, evidence.replayed
    title = f"{simulated.name}, {simulated.summary.requests:,} requests after the warm-up"
    table = Table(title=title, title_justify="left")
    for heading in ("", "simulated", "driven", "driven to simulated", "simulated with the driven choices"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    told = {
        "cache hits": f"{agreement.hit_points:+.2f} points",
        "TTFT p50": f"x {agreement.ttft_p50_ratio:.3f}",
        "TTFT p90": f"x {agreement.ttft_p90_ratio:.3f}",
    }
    for figure in FIGURES:
        one, other, third = (figure.show(figure.of(run.summary)) for run in (simulated, driven, replayed))
        table.add_row(figure.title, one, other, told.get(figure.title, ""), third)
    for replica, (one_share, other_share) in agreement.loads.items():
        change = f"{100 * (other_share - one_share):+.1f} points"
        table.add_row(f"load of {replica}", f"{one_share:.1%}", f"{other_share:.1%}", change, "")
    console.print(table)
    for line in notes(evidence, agreement):
        console.print(line, markup=False, highlight=False)


def notes(evidence: Evidence, agreement: Agreement) -> list[str]:
    """The verdict, and what a reader must know beside it."""
    driven, chance, served = evidence.driven, evidence.by_chance, len(evidence.driven.result.served)
    wanted = f"hits within {HIT_POINTS:g} points, median TTFT within {TTFT_SHARE:.0%}"
    failed, on_the_way_ms = driven.result.summary.failed, driven.on_the_way_s * 1e3
    hits, ttft = (" to ".join(f"{value:.3f}" for value in pair) for pair in chance)
    alike = f"{evidence.equally_cached:,} of {served:,} requests"
    moved = f"{CHANCE_RUNS} simulated runs, sessions up to {CHANCE_S * 1e3:.0f} ms later"
    return [
        f"simulated and driven: {agreement.word} (wanted: {wanted})",
        f"driven for {driven.result.wall_s:.0f} s, {failed:,} requests failed",
        f"{on_the_way_ms:.1f} ms of the driven mean TTFT were not in the engines",
        _kept_up(driven.lateness),
        f"simulated with the driven choices, {alike} found as many cached tokens",
        f"by chance alone ({moved}): hits {hits}, median TTFT {ttft} s",
    ]


def _kept_up(late: Lateness) -> str:
    named = (("p50", late.p50_s), ("p99", late.p99_s), ("most", late.most_s))
    lateness = ", ".join(f"{value_s * 1e3:.1f} ms ({name})" for name, value_s in named)
    return f"{late.steps:,} engine steps, late by {lateness}; {late.lost:,} engine clocks put back"


def json_comparison(evidence: Evidence, agreement: Agreement, settings: dict[str, Any]) -> bytes:
    """Settings, all summaries, the agreement and the lateness, indented; null where nothing was measured."""
    driven = evidence.driven
    document = {
        "settings": settings,
        "simulated": _finite(asdict(evidence.simulated.summary)),
        "driven": _finite(asdict(driven.result.summary)),
        "replayed": _finite(asdict(evidence.replayed.summary)),
        "agreement": _finite(asdict(agreement)),
        "by_chance": _finite(evidence.by_chance._asdict()),
        "lateness": _finite(driven.lateness._asdict()),
        "equally_cached": evidence.equally_cached,
        "on_the_way_s": driven.on_the_way_s,
        "wall_s": driven.result.wall_s,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and isnan(value) else value for key, value in values.items()
    }
