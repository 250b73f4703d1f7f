"""A rehearsal as tables for people and as JSON for everybody else."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.simulate.rehearsal.results import Rehearsed
from loadtest.simulate.rehearsal.words import MOVE_HEADINGS, move_rows, sentences, title_of
from loadtest.simulate.report import figure_table, summary_document
from router.commands.release_table import evidence_table

_WORDS: Final = frozenset({"move", "because"})
"""Columns that are no figures."""


def print_report(console: Console, one: Rehearsed, notes: Sequence[str]) -> None:
    """The verdict, the moves, the evidence at the end, and what each version answered."""
    for sentence in sentences(one):
        console.print(sentence, markup=False, highlight=False)
    console.print(_move_table(one))
    console.print(evidence_table(one.evidence))
    console.print(figure_table("Answers after the warm-up", one.results))
    for note in notes:
        console.print(f"[dim]{note}[/dim]", highlight=False)


def _move_table(one: Rehearsed) -> Table:
    table = Table(title=title_of(one), title_justify="left")
    for place, heading in enumerate(MOVE_HEADINGS):
        figure = heading not in _WORDS
        table.add_column(
            heading, justify="right" if figure else "left", no_wrap=place < len(MOVE_HEADINGS) - 1
        )
    for row in move_rows(one):
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
