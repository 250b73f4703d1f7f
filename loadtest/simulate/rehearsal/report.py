"""A rehearsal as tables for people and as JSON for everybody else."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.simulate.rehearsal.results import Rehearsed
from loadtest.simulate.rehearsal.words import (
    EVIDENCE_HEADINGS,
    MOVE_HEADINGS,
    evidence_rows,
    move_rows,
    sentences,
    title_of,
)
from loadtest.simulate.report import figure_table, summary_document


def print_report(console: Console, one: Rehearsed, notes: Sequence[str]) -> None:
    """The verdict, the moves, the evidence at the end, and what each version answered."""
    for sentence in sentences(one):
        console.print(sentence, markup=False, highlight=False)
    console.print(_table(title_of(one), MOVE_HEADINGS, move_rows(one), left=(1, 5)))
    console.print(_table("Evidence at the end", EVIDENCE_HEADINGS, evidence_rows(one), left=(0,)))
    console.print(figure_table("Answers after the warm-up", one.results))
    for note in notes:
        console.print(f"[dim]{note}[/dim]", highlight=False)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        wraps = place == len(headings) - 1
        table.add_column(heading, justify="left" if place in left else "right", no_wrap=not wraps)
    for row in rows:
        table.add_row(*row)
    return table


def json_report(one: Rehearsed, notes: Sequence[str], settings: Mapping[str, Any]) -> bytes:
    """The settings, and all that was found; null where there is nothing to measure."""
    document = {
        "settings": settings,
        "release": {
            "model": one.model,
            "stable": one.stable,
            "version": one.version,
            "defects": one.defects,
            "phase": one.phase.value,
            "decided": one.decided,
            "reason": one.finding,
            "starts_s": one.starts_s,
            "ended_s": one.ended_s,
            "percent": one.percent,
            "stable_requests": one.observed[False],
            "canary_requests": one.observed[True],
            "assigned": one.assigned,
            "covered": one.covered,
            "errors": one.errors,
            "left_out": one.left_out,
            "moves": [move._asdict() for move in one.moves],
            "evidence": one.evidence,
        },
        "results": [{"name": result.name, **summary_document(result)} for result in one.results],
        "sentences": sentences(one),
        "notes": notes,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
