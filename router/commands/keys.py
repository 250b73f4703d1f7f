"""`turnout keys`: keys for clients. A key is shown once; what is kept of it is a digest."""

import json
import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import click

from policies.limits.priority import PRIORITIES
from router.config import checks
from router.config.option import Complaint
from router.config.scalars import moment
from router.config.toml_text import toml_value

_PREFIX = "sk-turnout-"
"""Tells scanners of leaked secrets, and people, what they have found."""
_RANDOM_BYTES = 32


@click.group()
def keys() -> None:
    """Make keys for clients.

    \b
    Example:
      turnout keys new --tenant search
    """


def _checked(check: Callable[[str], str | None]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        complaint = None if value is None else check(value)
        if complaint is not None:
            raise click.BadParameter(complaint)
        return value

    return callback


def _models(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    complaint = next((complaint for name in names if (complaint := checks.name(name))), None)
    if complaint is not None:
        raise click.BadParameter(complaint)
    return names


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    try:
        return None if value is None else moment(value, " such as 2030-01-01T00:00:00Z")
    except Complaint as complaint:
        raise click.BadParameter(str(complaint)) from None


@keys.command()
@click.option("--tenant", required=True, callback=_checked(checks.label), help="Whom its use is counted for.")
@click.option(
    "--id",
    "key_id",
    callback=_checked(checks.label),
    help="Its name in logs and limits; by default the tenant's with some random digits.",
)
@click.option("--models", callback=_models, metavar="A,B", help="Models it may use; by default all.")
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    help="Who is served first when the fleet is full; by default normal.",
)
@click.option(
    "--expires", callback=_moment, metavar="DATE", help="When it stops being valid, as 2030-01-01T00:00:00Z."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def new(
    tenant: str,
    key_id: str | None,
    models: list[str] | None,
    priority: str | None,
    expires: Any,
    as_json: bool,
) -> None:
    """Print a new key, once, and the entry for the configuration that holds its digest.

    \b
    Example:
      turnout keys new --tenant search --models llama-8b --expires 2030-01-01T00:00:00Z
    """
    key = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    given = {
        "id": key_id or f"{tenant[:119]}-{secrets.token_hex(4)}",
        "digest": f"sha256:{sha256(key.encode()).hexdigest()}",
        "tenant": tenant,
        "models": models,
        "priority": priority,
        "expires": expires,
    }
    entry = {name: value for name, value in given.items() if value is not None}
    toml = "[[keys]]\n" + "".join(f"{name} = {toml_value(value)}\n" for name, value in entry.items())
    if as_json:
        click.echo(json.dumps({"key": key, "entry": entry, "toml": toml}, indent=2, default=toml_value))
        return
    click.echo("The key, for the client. It is not shown again:", err=True)
    click.echo(key)
    click.echo("The entry, for the configuration:", err=True)
    click.echo(f"\n{toml}", nl=False)
