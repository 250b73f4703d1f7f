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
    """Steps, from the beginning of the trace to the end of what was rehearsed."""
    points = [(0.0, 0.0)]
    for move in one.moves:
        share = move.weights[one.version] / 100
        points += [(move.at_s, points[-1][1]), (move.at_s, share)]
    points.append((one.ended_s, points[-1][1]))
    x = charts.time_axis(one.ended_s * 1.1)
    y = charts.share_axis("share", max(share for _, share in points))
    mark = (one.ended_s, one.moves[-1].phase.replace("_", " ")) if one.decided else None
    # The canary has the second colour, as in the other charts.
    svg = charts.lines(f"Share of {one.version} over time", x, y, [(), points], mark)
    return Chart(f"Share of the traffic that {one.version} has, over time", [Key(1, one.version)], svg)
