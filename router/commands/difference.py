"""`turnout diff`: what another configuration would change, and whether a running router can take it."""

import json
from pathlib import Path

import click

from router.commands.configuration import read_or_exit
from router.config.differences import Difference, differences
from router.config.origin import Origin
from router.config.source import dotted

RESTART = 1
"""Exit code where only a restart brings the new configuration into force."""


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, on standard output.")
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Say what changes in behaviour from one configuration to another, and whether a reload can apply it.

    Exit code 0: nothing changes, or a reload applies it. 1: it needs a restart. 2: one of them is invalid.

    \b
    Example:
      turnout diff turnout.toml new.toml
    """
    before, _ = read_or_exit(Origin(old))
    after, _ = read_or_exit(Origin(new))
    found = differences(before, after)
    restart = any(each.restart for each in found)
    if as_json:
        click.echo(json.dumps(_plain(found, restart=restart), indent=2, ensure_ascii=False))
    else:
        _print(found, restart=restart)
    raise SystemExit(RESTART if restart else 0)


def _print(found: list[Difference], *, restart: bool) -> None:
    for each in found:
        click.echo(f"{'! ' if each.restart else '  '}{each.text}")
    if not found:
        click.echo("nothing changes")
    elif restart:
        click.echo("this needs a restart, for what is marked with '!'; a reload refuses all of it")
    else:
        click.echo("a reload applies all of it")


def _plain(found: list[Difference], *, restart: bool) -> dict[str, object]:
    changes = [{"path": dotted(each.path), "text": each.text, "restart": each.restart} for each in found]
    return {"changes": changes, "restart": restart}
