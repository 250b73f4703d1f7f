"""A rehearsal as one HTML file: the canary's share over time with the decision, and what stands behind it."""

from collections.abc import Sequence
from typing import Final

from loadtest.simulate import charts
from loadtest.simulate.compare import FIGURES
from loadtest.simulate.html import Chart, Key, distributions, figure_rows, loads, template
from loadtest.simulate.rehearsal.results import Rehearsed
from loadtest.simulate.rehearsal.words import (
    EVIDENCE_HEADINGS,
    MOVE_HEADINGS,
    evidence_rows,
    move_rows,
    sentences,
    title_of,
)
from loadtest.simulate.results import Slo

_TEMPLATE: Final = "rehearsal/rehearsal.html.j2"
_BEHIND: Final = 1.25
"""Room for the word beside the mark."""


def page(one: Rehearsed, subtitle: str, slo: Slo, notes: Sequence[str]) -> str:
    answered = [result for result in one.results if result.served]
    return template(_TEMPLATE).render(
        title=title_of(one),
        subtitle=subtitle,
        sentences=sentences(one),
        tables=[
            ("Moves", MOVE_HEADINGS, move_rows(one)),
            ("Evidence at the end", EVIDENCE_HEADINGS, evidence_rows(one)),
        ],
        headings=[figure.title for figure in FIGURES],
        rows=figure_rows(one.results),
        charts=[_shares(one), *distributions(one.results, slo), *loads(answered)],
        notes=notes,
    )


def _shares(one: Rehearsed) -> Chart:
    """Steps from the beginning of the trace; behind a decision what it means goes on for a while."""
    span_s = one.ended_s * (_BEHIND if one.decided else 1.0)
    points = [(0.0, 0.0)]
    for move in one.moves:
        share = move.weights[one.version] / 100
        points += [(move.at_s, points[-1][1]), (move.at_s, share)]
    points.append((span_s, points[-1][1]))
    y = charts.share_axis("share", max(share for _, share in points))
    mark = (one.ended_s, one.moves[-1].phase.replace("_", " ")) if one.decided else None
    # The canary has the second colour, as in the other charts.
    x, curves = charts.time_axis(span_s), [(), points]
    svg = charts.lines(f"Share of {one.version} over time", x, y, curves, mark)
    return Chart(f"Share of the traffic that {one.version} has, over time", [Key(1, one.version)], svg)
