"""`turnout explain`: where a request would go, and why."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from time import time
from urllib.parse import urlencode

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
from router.control.keys import ANONYMOUS, KeyRing
from router.control.limits.local import LocalStore
from router.control.limits.of_config import rules_of
from router.fleet.build import build_fleet
from router.fleet.decision import DecisionView, LimitCheck
from router.flow.admission import Gate

_WIDTH = 200
_UNITS = {"concurrency": "slots"}


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="A configuration nobody serves yet.")
@click.option(
    "--request", "request_path", type=click.Path(path_type=Path), required=True, help="The request's JSON."
)
@click.option(
    "--admin", envvar="TURNOUT_ADMIN", help="A running router's admin listener: what it would do now."
)
@click.option("--key", "key_id", help="Whose request it would be: the id of a key.")
@click.option("--token", envvar="TURNOUT_ADMIN_TOKEN", help="The listener's token, if it has one.")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def explain(
    path: Path | None,
    request_path: Path,
    admin: str | None,
    key_id: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Show what would become of a request: what limits would say, where it would go, and why.

    With --admin a running router is asked, and knows its load, its caches and what was used of limits; with
    --config alone all replicas are up, idle and empty, and nothing is used.

    \b
    Example:
      turnout explain --admin http://127.0.0.1:8081 --request request.json
    """
    body = request_path.read_bytes()
    if admin is not None:
        with AdminClient(admin, token) as client:
            where = "/api/explain" if key_id is None else f"/api/explain?{urlencode({'key': key_id})}"
            view = client.decode(client.post(where, body), DecisionView)
    elif path is not None:
        view = asyncio.run(_of_config(load_or_exit(path), body, key_id))
    else:
        raise click.UsageError("give --config FILE, or --admin URL of a running router")
    if as_json:
        click.echo(msgspec.json.encode(view).decode())
    else:
        _print(view)


async def _of_config(config: Config, body: bytes, key_id: str | None) -> DecisionView:
    rules = RequestRules(max_depth=config.server.max_json_depth)
    caller = ANONYMOUS if key_id is None else KeyRing(config.keys, time).named(key_id)
    if caller is None:
        raise click.UsageError(f"there is no key {key_id!r} in the configuration")
    gate = Gate(rules_of(config), LocalStore())
    try:
        return await explained(build_fleet(config, Random(), b""), body, rules, caller, gate)
    except TurnoutError as error:
        raise click.ClickException(
            f"the request would be refused: {error.status} {error.code}: {error}"
        ) from error


def _print(view: DecisionView) -> None:
    console = Console(width=None if Console().is_terminal else _WIDTH, highlight=False)
    prompt = "" if view.prompt_tokens is None else f", a prompt of about {view.prompt_tokens} tokens"
    console.print(Text(f"{view.model} version {view.version} by {view.policy}{prompt}"))
    if view.limits:
        console.print(_limits_table(view.limits))
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


def _limits_table(checks: Sequence[LimitCheck]) -> Table:
    table = Table(header_style="dim")
    table.add_column("limit")
    for name in ("takes", "remaining"):
        table.add_column(name, justify="right")
    table.add_column("says")
    for check in checks:
        says = Text("admits", style="green") if check.admits else Text(_refusal(check), style="red")
        table.add_row(
            check.limit, f"{check.takes:,} {_UNITS.get(check.kind, check.kind)}", f"{check.remaining:,}", says
        )
    return table


def _refusal(check: LimitCheck) -> str:
    if check.wait_s is not None:
        return f"refuses; would admit it in {check.wait_s:.3g} s"
    return "refuses" if check.takes else "refuses: it costs more than the limit ever holds"
