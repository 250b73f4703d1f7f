"""`turnout explain`: where a request would go, and why."""

from pathlib import Path
from random import Random

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.admin.explain import explained
from router.api.errors import TurnoutError
from router.api.openai import RequestRules
from router.commands.admin_client import AdminClient
from router.commands.configuration import load_or_exit
from router.config.model import Config
from router.fleet.build import build_fleet
from router.fleet.decision import DecisionView

_WIDTH = 200


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="A configuration nobody serves yet.")
@click.option(
    "--request", "request_path", type=click.Path(path_type=Path), required=True, help="The request's JSON."
)
@click.option(
    "--admin", envvar="TURNOUT_ADMIN", help="A running router's admin listener: what it would do now."
)
@click.option("--token", envvar="TURNOUT_ADMIN_TOKEN", help="The listener's token, if it has one.")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def explain(
    path: Path | None, request_path: Path, admin: str | None, token: str | None, as_json: bool
) -> None:
    """Show where a request would go, with every candidate's cost and what it is made of.

    With --admin a running router is asked, and knows its load and its caches; with --config alone all
    replicas are up, idle and empty.

    \b
    Example:
      turnout explain --admin http://127.0.0.1:8081 --request request.json
    """
    body = request_path.read_bytes()
    if admin is not None:
        with AdminClient(admin, token) as client:
            view = client.decode(client.post("/api/explain", body), DecisionView)
    elif path is not None:
        view = _of_config(load_or_exit(path), body)
    else:
        raise click.UsageError("give --config FILE, or --admin URL of a running router")
    if as_json:
        click.echo(msgspec.json.encode(view).decode())
    else:
        _print(view)


def _of_config(config: Config, body: bytes) -> DecisionView:
    rules = RequestRules(max_depth=config.server.max_json_depth)
    try:
        return explained(build_fleet(config, Random(), b""), body, rules)
    except TurnoutError as error:
        raise click.ClickException(
            f"the request would be refused: {error.status} {error.code}: {error}"
        ) from error


def _print(view: DecisionView) -> None:
    console = Console(width=None if Console().is_terminal else _WIDTH, highlight=False)
    prompt = "" if view.prompt_tokens is None else f", a prompt of about {view.prompt_tokens} tokens"
    console.print(Text(f"{view.model} version {view.version} by {view.policy}{prompt}"))
    terms = list(dict.fromkeys(name for one in view.candidates for name in one.terms))
    table = Table(header_style="dim")
    table.add_column("replica")
    for name in ("cost", *terms):
        table.add_column(name.replace("_", " "), justify="right")
    for one in view.candidates:
        style = "bold green" if one.replica == view.chosen else ""
        values = [one.cost, *(one.terms.get(name) for name in terms)]
        table.add_row(
            one.replica, *("–" if value is None else f"{value:.4g}" for value in values), style=style
        )
    console.print(table)
    least = [one for one in view.candidates if one.cost == view.candidates[0].cost]
    chosen = f"chosen: {view.chosen}" if len(least) == 1 else f"{len(least)} are equal: one of them by chance"
    console.print(Text(chosen))
