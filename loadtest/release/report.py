"""The releases of a cell in one row, and whether it holds what is aimed at."""

from collections.abc import Mapping, Sequence
from math import ceil, inf, sqrt
from typing import Any, Literal, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.release.cells import Aim, Cell
from loadtest.release.rivals import RIVALS
from loadtest.release.trial import ALL, Trial
from policies.release.canary import Kind

TABLE_WIDTH = 150
PERCENTILES = (0.50, 0.95, 0.99)
_HEADINGS = (
    "cell",
    "releases",
    "rolled back",
    "reached 100 %",
    "promoted",
    "open",
    "p50/p95/p99",
    "wanted",
    "",
)
_FIGURES = 7
"""Columns from the second to this one are numbers."""


class Row(NamedTuple):
    """Shares are of the releases; percentiles of the canary's requests until it was taken back, by quantile.

    A release that was not taken back needed more than any: None. `holds`: None where nothing was aimed at.
    """

    cell: str
    releases: int
    rolled_back: float
    rolled_back_at_most: float
    """Upper end of the 95 % interval (Wilson's), so that few releases do not look like proof."""
    reached_all: float
    reached_all_at_most: float
    promoted: float
    inconclusive: float
    unfinished: float
    until_rollback: Mapping[str, int | None]
    requests: int
    """Median of all requests until the end."""
    rivals: Mapping[str, float]
    wanted: str
    holds: bool
    reasons: Mapping[str, int]
    """What was rolled back for, by its first words."""


def row(cell: Cell, trials: Sequence[Trial]) -> Row:
    """Of at least one release."""
    ends = {kind: sum(trial.kind is kind for trial in trials) for kind in Kind}
    reached = sum(trial.percent >= ALL for trial in trials)
    waits = sorted(trial.canary_requests if trial.kind is Kind.ROLLBACK else inf for trial in trials)
    count = len(trials)
    wanted, holds = _goal(cell, waits, ends[Kind.ROLLBACK] / count, reached / count)
    alarms = zip(*(trial.rivals for trial in trials), strict=True) if cell.rivals else ()
    return Row(
        cell.name,
        count,
        ends[Kind.ROLLBACK] / count,
        _at_most(ends[Kind.ROLLBACK], count),
        reached / count,
        _at_most(reached, count),
        ends[Kind.PROMOTE] / count,
        ends[Kind.INCONCLUSIVE] / count,
        ends[Kind.HOLD] / count,
        {f"p{100 * part:.0f}": _finite(_percentile(waits, part)) for part in PERCENTILES},
        int(_percentile(sorted(trial.requests for trial in trials), 0.5)),
        {name: sum(alarmed) / count for name, alarmed in zip(RIVALS, alarms, strict=False)},
        wanted,
        holds,
        _reasons(trials),
    )


def _goal(cell: Cell, waits: Sequence[float], rolled_back: float, reached: float) -> tuple[str, bool]:
    if cell.aim is Aim.KEEP:
        return f"rolled back < {cell.most:.1%}", rolled_back < cell.most
    if cell.aim is Aim.STOP:
        return f"reached 100 % < {cell.most:.1%}", reached < cell.most
    within = " ".join(f"p{100 * part:.0f}<={limit}" for part, limit in cell.within)
    return within, all(_percentile(waits, part) <= limit for part, limit in cell.within)


def _reasons(trials: Sequence[Trial]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for trial in trials:
        if trial.kind is Kind.ROLLBACK:
            words = trial.reason.partition(":")[0]
            found[words] = found.get(words, 0) + 1
    return found


def _percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest that so great a part does not exceed."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)]


def _finite(value: float) -> int | None:
    return None if value == inf else int(value)


def _at_most(hits: int, count: int) -> float:
    z = 1.96
    share = hits / count
    middle = share + z * z / (2 * count)
    reach = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle + reach) / (1 + z * z / count)


def print_report(console: Console, rows: Sequence[Row]) -> None:
    """A line for each cell, and what others would have done."""
    table = Table(title="Releases decided by evidence", title_justify="left")
    for number, heading in enumerate(_HEADINGS):
        justify: Literal["left", "right"] = "right" if 0 < number < _FIGURES else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "wanted")
    for one in rows:
        table.add_row(*_line(one))
    console.print(table)
    console.print("p50/p95/p99: requests of the canary until it was taken back. (<): 95 % upper bound.")
    for one in rows:
        for name, share in one.rivals.items():
            console.print(f"{one.cell}: {name} takes it back in {share:.1%}", highlight=False)


def _line(one: Row) -> Sequence[str]:
    return (
        one.cell,
        f"{one.releases:,}",
        f"{one.rolled_back:.2%} (<{one.rolled_back_at_most:.1%})",
        f"{one.reached_all:.2%} (<{one.reached_all_at_most:.1%})",
        f"{one.promoted:.1%}",
        f"{one.inconclusive + one.unfinished:.1%}",
        "/".join("-" if value is None else str(value) for value in one.until_rollback.values()),
        one.wanted,
        "holds" if one.holds else "does not hold",
    )


def json_report(rows: Sequence[Row], settings: Mapping[str, Any]) -> bytes:
    """Everything in the table, and the settings that repeat it."""
    document = {"settings": settings, "rows": [one._asdict() for one in rows]}
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
