"""Results as a table for people and as JSON for everybody else."""

from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.simulate.compare import FIGURES, sentences
from loadtest.simulate.contender import Result
from loadtest.simulate.results import Slo

TABLE_WIDTH = 150


def print_report(console: Console, results: Sequence[Result], slo: Slo) -> None:
    """One row a result; where there are two, which wins what."""
    console.print(figure_table(f"{results[0].summary.requests:,} requests after the warm-up", results))
    if len(results) == 2:
        for sentence in sentences(results[0], results[1], slo):
            console.print(sentence, markup=False, highlight=False)
    for note in notes(results, slo):
        console.print(f"[dim]{note}[/dim]", highlight=False)


def figure_table(title: str, results: Sequence[Result]) -> Table:
    """One row a result."""
    table = Table(title=title, title_justify="left")
    table.add_column("configuration", no_wrap=True)
    for figure in FIGURES:
        table.add_column(figure.title, justify="right", no_wrap=True)
    for result in results:
        table.add_row(result.name, *(figure.show(figure.of(result.summary)) for figure in FIGURES))
    return table


def notes(results: Sequence[Result], slo: Slo) -> list[str]:
    """What a reader must know beside the figures."""
    lines = [
        f"goodput: first token within {slo.ttft_s:g} s, {slo.tpot_s * 1e3:g} ms per output token on average",
        "; ".join(
            f"{result.name}: {len(result.served):,} requests in {result.wall_s:.1f} s, "
            f"{result.requests_per_minute:,.0f} a minute"
            for result in results
        ),
    ]
    left_out = max(result.left_out for result in results)
    if left_out:
        lines.append(f"{left_out:,} requests are longer than a replica's memory and were left out")
    failed = [f"{result.name}: {result.summary.failed:,} requests failed" for result in results]
    return lines + [line for line, result in zip(failed, results, strict=True) if result.summary.failed]


def json_report(results: Sequence[Result], slo: Slo, settings: dict[str, Any]) -> bytes:
    """The settings, the summaries and the comparison, indented; null where there is nothing to measure."""
    document = {
        "settings": settings | {"ttft_slo_s": slo.ttft_s, "tpot_slo_s": slo.tpot_s},
        "results": [
            {
                "name": result.name,
                **summary_document(result),
                "left_out": result.left_out,
                "wall_s": result.wall_s,
                "requests_per_minute": result.requests_per_minute,
            }
            for result in results
        ],
        "comparison": sentences(results[0], results[1], slo) if len(results) == 2 else [],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def summary_document(result: Result) -> dict[str, float | None]:
    """Every figure, null where there is nothing to measure."""
    return {key: _finite(value) for key, value in asdict(result.summary).items()}


def _finite(value: float) -> float | None:
    return None if isnan(value) else value
