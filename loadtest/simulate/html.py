"""The report as one HTML file without anything outside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from loadtest.simulate import charts, series
from loadtest.simulate.compare import FIGURES, sentences, verdicts
from loadtest.simulate.contender import Result
from loadtest.simulate.results import Slo, measured

_TEMPLATE: Final = "report.html.j2"


class Cell(NamedTuple):
    text: str
    wins: bool


class Row(NamedTuple):
    name: str
    cells: Sequence[Cell]


class Key(NamedTuple):
    series: int
    name: str


class Chart(NamedTuple):
    title: str
    keys: Sequence[Key]
    svg: str


def page(title: str, subtitle: str, results: Sequence[Result], slo: Slo, notes: Sequence[str]) -> str:
    """`results`: one, or two that are compared."""
    return template(_TEMPLATE).render(
        title=title,
        subtitle=subtitle,
        sentences=sentences(results[0], results[1], slo) if len(results) == 2 else [],
        headings=[figure.title for figure in FIGURES],
        rows=figure_rows(results),
        charts=[*distributions(results, slo), _hits(results), _goodput(results, slo), *loads(results)],
        notes=notes,
    )


def template(name: str) -> Template:
    """One of this folder's."""
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(name)


def figure_rows(results: Sequence[Result]) -> list[Row]:
    found = verdicts(results[0], results[1]) if len(results) == 2 else []
    winners = [verdict.winner for verdict in found] or [None] * len(FIGURES)
    return [
        Row(
            result.name,
            [
                Cell(figure.show(figure.of(result.summary)), winner == result.name)
                for figure, winner in zip(FIGURES, winners, strict=True)
            ],
        )
        for result in results
    ]


def _keys(results: Sequence[Result]) -> list[Key]:
    return [Key(index, result.name) for index, result in enumerate(results)]


def distributions(results: Sequence[Result], slo: Slo) -> list[Chart]:
    ttft = [[s.ttft_s for s in measured(r.served) if s.ttft_s is not None] for r in results]
    tpot = [[s.tpot_s for s in measured(r.served) if s.tpot_s is not None] for r in results]
    return [
        _distribution("Time to first token", ttft, slo.ttft_s, results),
        _distribution("Mean time per output token", tpot, slo.tpot_s, results),
    ]


def _distribution(
    title: str, values: Sequence[Sequence[float]], slo_s: float, results: Sequence[Result]
) -> Chart:
    x = charts.seconds_axis(f"{title.lower()}, logarithmic", [value for some in values for value in some])
    y = charts.share_axis("requests")
    curves = [series.curve(some) for some in values]
    svg = charts.lines(f"{title}, cumulative", x, y, curves, (slo_s, "SLO"))
    return Chart(f"{title}: share of requests within it", _keys(results), svg)


def _hits(results: Sequence[Result]) -> Chart:
    span_s = _span_s(results)
    curves = [series.hit_rate(result.served, span_s) for result in results]
    highest = max((rate for points in curves for _, rate in points), default=1.0)
    y = charts.share_axis("hit rate", highest)
    svg = charts.lines("Hit rate over time", charts.time_axis(span_s), y, curves)
    return Chart("Prompt tokens found in caches, over time", _keys(results), svg)


def _goodput(results: Sequence[Result], slo: Slo) -> Chart:
    span_s = _span_s(results)
    curves = [series.goodput(result.served, slo, span_s) for result in results]
    svg = charts.lines("Goodput over time", charts.time_axis(span_s), charts.share_axis("goodput"), curves)
    return Chart("Requests inside the SLO, over time", _keys(results), svg)


def loads(results: Sequence[Result]) -> list[Chart]:
    """On one scale, so that colours compare."""
    span_s = max(one.ended_at for result in results for one in result.served)
    rows = [series.load(result.served, result.replicas, span_s) for result in results]
    most = max(value for row in rows for cells in row.values() for value in cells) or 1.0
    return [
        Chart(
            "Requests on each replica over time",
            [Key(index, f"{result.name}; full colour is {most:.0f} in flight")],
            charts.strips(f"Load, {result.name}", cells, most, charts.time_axis(span_s), index),
        )
        for index, (result, cells) in enumerate(zip(results, rows, strict=True))
    ]


def _span_s(results: Sequence[Result]) -> float:
    return max(one.at for result in results for one in result.served) or 1.0
