"""Limits as `turnout status` shows them."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.admin.limits import BucketView, LimitsView, StoreView

_SHOWN = 20


def limits_table(limits: LimitsView) -> RenderableType:
    """The buckets with the least left, and where they are counted."""
    table = Table(title=Text("limits"), title_justify="left", title_style="bold", header_style="dim")
    for name in ("limit", "of", "of whom"):
        table.add_column(name)
    for name in ("left", "holds", "full again"):
        table.add_column(name, justify="right")
    for bucket in limits.buckets[:_SHOWN]:
        table.add_row(*_cells(bucket))
    if not limits.buckets:
        table.add_row(Text(", ".join(limits.limits)), Text("nothing is in use", style="dim"))
    more = len(limits.buckets) - _SHOWN
    parts: list[RenderableType] = [table]
    if more > 0:
        parts.append(Text(f"and {more} more; GET /api/limits lists them", style="dim"))
    if limits.store is not None:
        parts.append(_place(limits.store))
    return Group(*parts)


def _cells(bucket: BucketView) -> list[RenderableType]:
    style = "red" if not bucket.remaining else ""
    whom = ", ".join(value or "nobody named" for value in bucket.subject.values()) or "everybody"
    reset = f"{bucket.reset_s:.1f} s" if bucket.reset_s else ""
    left = Text(f"{bucket.remaining:,}", style=style)
    return [Text(bucket.limit), bucket.kind, Text(whom), left, f"{bucket.most:,}", reset]


def _place(store: StoreView) -> Text:
    text = f"counted in {store.place}"
    if store.unsettled:
        text += f"; {store.unsettled} settlements wait"
    return Text(text, style="dim" if store.healthy else "yellow")
