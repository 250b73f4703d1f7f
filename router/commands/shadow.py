"""`turnout shadow`: how the answers of a version that gets copies compare, as a table or as JSON."""

import time

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.admin.shadows import MeasureView, ShadowsView, ShadowView
from router.commands.admin_client import AdminClient, admin_options
from router.commands.status import rounded

_SHOWN = 5
_DIFFERENCES = {
    "status": "another status",
    "prompt_tokens": "another count of prompt tokens",
    "finish_reason": "another finish reason",
    "text": "another text (greedy)",
    "output_tokens": "another count of output tokens (greedy)",
}
_MEASURES = {
    "time_to_first_token_s": "first token",
    "inter_token_s": "between tokens",
    "answer_s": "whole answer",
    "output_tokens": "output tokens",
}


@click.command()
@click.argument("model", required=False)
@admin_options
@click.option("--json", "as_json", is_flag=True, help="Print the document.")
def shadow(model: str | None, admin: str, token: str | None, as_json: bool) -> None:
    """Show how copies of requests fared at the versions that get them, beside what clients were given.

    \b
    Example:
      turnout shadow
      turnout shadow llama-8b --json
    """
    with AdminClient(admin, token) as client:
        view = client.decode(client.get("/api/shadow"), ShadowsView)
    shadows = [each for each in view.shadows if model in (None, each.model)]
    if as_json:
        click.echo(msgspec.json.encode(ShadowsView(shadows)))
        return
    if not shadows:
        raise click.ClickException(_nothing(model))
    Console(width=None if Console().is_terminal else 120, highlight=False).print(rendered(shadows))


def _nothing(model: str | None) -> str:
    whose = "of any model" if model is None else f"of model {model!r}"
    return f"no request {whose} was drawn for a copy yet; [models.NAME.shadow] says how many are to be"


def rendered(shadows: list[ShadowView]) -> RenderableType:
    """The whole of it for a terminal."""
    return Group(*(part for each in shadows for part in _parts(each)))


def _parts(shadow: ShadowView) -> list[RenderableType]:
    title = Text(f"{shadow.model}: copies to {shadow.version} of what {shadow.against} served", style="bold")
    parts: list[RenderableType] = [title, _words(shadow.results)]
    if shadow.codes:
        parts.append(Text.assemble(Text("why not: ", style="dim"), _words(shadow.codes)))
    if shadow.pairs:
        parts += [_differences(shadow), _measures(shadow)]
    if shadow.text is not None:
        text = shadow.text
        parts.append(
            Text(
                f"greedy: {text.equal} of {text.pairs} texts are equal; "
                f"{text.common_share:.1%} of a text is in common on average"
            )
        )
    for each in shadow.examples[:_SHOWN]:
        at = time.strftime("%H:%M:%S", time.localtime(each.at))
        parts.append(Text(f"{at} {each.request_id}: {each.detail}", style="dim"))
    return [*parts, Text()]


def _words(counts: dict[str, int]) -> Text:
    return Text(", ".join(f"{count} {word.replace('_', ' ')}" for word, count in sorted(counts.items())))


def _differences(shadow: ShadowView) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("answers with")
    for name in ("differ", "of", "share"):
        table.add_column(name, justify="right")
    for word, title in _DIFFERENCES.items():
        view = shadow.differences.get(word)
        if view is not None:
            style = "yellow" if view.differing else ""
            share = f"{view.differing / view.judged:.1%}"
            table.add_row(title, f"{view.differing}", f"{view.judged}", share, style=style)
    return table


def _measures(shadow: ShadowView) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("median of pairs")
    for name in (shadow.against, shadow.version, "ratio", "90% below", "pairs"):
        table.add_column(name, justify="right")
    for word, title in _MEASURES.items():
        view = shadow.measures.get(word)
        if view is not None:
            form = _milliseconds if word.endswith("_s") else rounded
            table.add_row(title, form(view.served), form(view.copy), *_ratios(view))
    return table


def _milliseconds(seconds: float) -> str:
    return f"{rounded(seconds * 1000)} ms"


def _ratios(view: MeasureView) -> tuple[str, str, str]:
    return f"{view.ratio:.2f}", f"{view.ratio_p90:.2f}", str(view.pairs)
