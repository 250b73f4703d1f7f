"""`turnout release`: move the traffic of a model from one version to another, and see what became of it."""

import getpass
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click
import msgspec

from router.commands.admin_client import AdminClient, admin_options
from router.commands.release_table import history_table, print_tables, release_table
from router.control.releases.views import Order, ReleasesView, ReleaseView

Command = Callable[..., None]


def _common(command: Command) -> Command:
    """What every verb has."""
    return admin_options(click.option("--json", "as_json", is_flag=True, help="Print the document.")(command))


def _moving(command: Command) -> Command:
    """What every verb has that moves something."""
    options = (
        click.option("--reason", default="", help="Why; it is written down."),
        click.option("--actor", default=None, help="Who; absent: the user of this command."),
    )
    for option in reversed(options):
        command = option(command)
    return _common(command)


@click.group()
def release() -> None:
    """Release a version: start, weight, pause, resume, promote, rollback, status, history.

    \b
    Example:
      turnout release start llama-8b v2
      turnout release status llama-8b
      turnout release rollback llama-8b --reason "tool calls are broken"
    """


@release.command()
@click.argument("model")
@click.argument("version")
@click.option("--percent", type=float, help="Begin with this share instead of the first step.")
@click.option("--manual", is_flag=True, help="Only people move it; evidence is gathered and shown.")
@click.option("--force", is_flag=True, help="Also a version that was rolled back, or is not ready.")
@_moving
def start(model: str, version: str, **options: Any) -> None:
    """Begin to send traffic of MODEL to VERSION, as [models.MODEL.canary] says."""
    _move(model, "start", version=version, **options)


@release.command()
@click.argument("model")
@click.argument("percent", type=float)
@_moving
def weight(model: str, **options: Any) -> None:
    """Set the canary's share to PERCENT. From then on only people move it, until `resume`."""
    _move(model, "weight", **options)


@release.command()
@click.argument("model")
@_moving
def pause(model: str, **options: Any) -> None:
    """Stay where it is. Evidence that it is bad still rolls it back."""
    _move(model, "pause", **options)


@release.command()
@click.argument("model")
@_moving
def resume(model: str, **options: Any) -> None:
    """Let the evidence move it on, also after a share that was set by hand."""
    _move(model, "resume", **options)


@release.command()
@click.argument("model")
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Also a version without a ready replica.")
@_moving
def promote(model: str, version: str | None, **options: Any) -> None:
    """Make the canary stable now, whatever the evidence says."""
    _move(model, "promote", version=version, **options)


@release.command()
@click.argument("model")
@click.argument("version", required=False)
@_moving
def rollback(model: str, version: str | None, **options: Any) -> None:
    """Give all traffic back to the version before; open streams finish."""
    _move(model, "rollback", version=version, **options)


@release.command()
@click.argument("model", required=False)
@_common
def status(model: str | None, admin: str, token: str | None, as_json: bool) -> None:
    """Where the traffic of MODEL is, or of every model, and what the evidence says."""
    with AdminClient(admin, token) as client:
        path = "/api/releases" if model is None else _path(model)
        document = client.get(path)
        if model is None:
            shown = client.decode(document, ReleasesView).releases
        else:
            shown = [client.decode(document, ReleaseView)]
    _print(document, *map(release_table, shown), as_json=as_json)


@release.command()
@click.argument("model")
@_common
def history(model: str, admin: str, token: str | None, as_json: bool) -> None:
    """Who moved the traffic of MODEL, when, why, and on what evidence."""
    with AdminClient(admin, token) as client:
        document = client.get(f"{_path(model)}?history=all")
        view = client.decode(document, ReleaseView)
    _print(document, history_table(view), as_json=as_json)


def _move(
    model: str, verb: str, *, admin: str, token: str | None, as_json: bool, actor: str | None, **order: Any
) -> None:
    body = msgspec.json.encode(Order(verb=verb, actor=actor or _whoever(), **order))
    with AdminClient(admin, token) as client:
        document = client.post(_path(model), body)
        view = client.decode(document, ReleaseView)
    _print(document, release_table(view), as_json=as_json)


def _print(document: str, *tables: Any, as_json: bool) -> None:
    if as_json:
        click.echo(document)
    else:
        print_tables(*tables)


def _path(model: str) -> str:
    return f"/api/releases/{quote(model)}"


def _whoever() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in many containers
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
