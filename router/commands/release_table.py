"""Releases as people read them: where the traffic is, what the evidence says, and who moved it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.control.releases.records import Entry, Evidence
from router.control.releases.views import ReleaseView

_STYLES = {
    "stable": "green",
    "canary": "cyan",
    "paused": "yellow",
    "inconclusive": "yellow",
    "quarantined": "red",
    "verify_failed": "red",
    "warming": "yellow",
}


def print_tables(*tables: RenderableType) -> None:
    # A pipe has no width of its own: wide enough for every column.
    console = Console(width=None if Console().is_terminal else 150, highlight=False)
    for table in tables:
        console.print(table)


def release_table(view: ReleaseView) -> RenderableType:
    """One model."""
    table = _table(("version", "state", "traffic", "ready"))
    for one in view.versions:
        state = Text(one.state, style=_STYLES.get(one.state, ""))
        table.add_row(one.version, state, f"{one.percent:g} %", f"{one.replicas_ready}/{one.replicas}")
    parts: list[RenderableType] = [Text(_title(view), style="bold"), table]
    if view.evidence:
        parts.append(evidence_table(view.evidence))
    if view.finding:
        parts.append(Text(view.finding, style="dim"))
    parts += [Text(warning, style="yellow") for warning in view.warnings]
    return Group(*parts)


def evidence_table(evidence: Sequence[Evidence]) -> Table:
    table = _table(("evidence against it", "so far", "canary", "stable", "canary n", "stable n"))
    for one in evidence:
        share = max(0.0, one.log_e / one.threshold) if one.threshold else 0.0
        style = "red" if share >= 1 else "yellow" if share >= 0.5 else ""
        table.add_row(
            one.metric,
            Text(f"{share:.0%}", style=style),
            _number(one.canary),
            _number(one.stable),
            f"{one.canary_n:,}",
            f"{one.stable_n:,}",
        )
    return table


def history_table(view: ReleaseView) -> RenderableType:
    """The newest move first."""
    table = _table(("", "when (UTC)", "move", "canary", "share", "who", "why"))
    for entry in view.history:
        table.add_row(*_cells(entry))
    return Group(Text(f"{view.model}: history", style="bold"), table)


def _cells(entry: Entry) -> tuple[str, ...]:
    when = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    share = f"{entry.percent_before:g} → {entry.percent:g} %"
    return (
        str(entry.generation), when, entry.verb, entry.canary or "", share, entry.actor, entry.reason
    )  # fmt: skip


def _title(view: ReleaseView) -> str:
    if view.phase not in ("canary", "paused", "inconclusive"):
        return f"{view.model}: {view.phase.replace('_', ' ')}, {view.stable} is stable"
    step = "by hand" if view.step is None else f"step {view.step + 1} of {len(view.steps)}"
    return f"{view.model}: {view.phase}, {view.canary} has {view.percent:g} % ({step})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(names: tuple[str, ...]) -> Table:
    table = Table(header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    return table
