"""`turnout check` and `turnout config`: what a configuration file says, and what is wrong with it."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from router.config.available import unavailable
from router.config.decode import load
from router.config.model import Config
from router.config.origin import Origin
from router.config.show import to_plain, to_toml
from router.config.source import ConfigError, Mistake
from router.config.toml_text import toml_value

INVALID = 2
"""Exit code of bad usage and of a bad configuration."""


@click.command()
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, on standard output.")
def check(path: Path, as_json: bool) -> None:
    """Say whether a configuration file is valid, and everything that is wrong with it.

    \b
    Example:
      turnout check turnout.toml
    """
    if as_json:
        _check_as_json(path)
        return
    loaded = load_or_exit(path)
    click.echo(f"{path}: valid: {_summary(loaded)}")
    if not_yet := unavailable(loaded):
        click.echo("`turnout serve` refuses it for now:", err=True)
        _echo_mistakes(not_yet)


@click.command()
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option(
    "--defaults", is_flag=True, help="Also what is not set, and advice on every option, as comments."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def config(path: Path, defaults: bool, as_json: bool) -> None:
    """Print the effective configuration as TOML, secrets masked.

    \b
    Example:
      turnout config turnout.toml --defaults
    """
    loaded = load_or_exit(path)
    if as_json:
        _echo_json(to_plain(loaded))
    else:
        click.echo(to_toml(loaded, every_option=defaults), nl=False)


def load_or_exit(path: Path) -> Config:
    """The configuration at `path`; every mistake goes to standard error, and the exit code is 2."""
    try:
        return load(path)
    except ConfigError as error:
        _echo_mistakes(error.mistakes)
        raise SystemExit(INVALID) from None


def read_or_exit(origin: Origin) -> tuple[Config, str]:
    """The same of one that is to be served, with its text; also what is not available yet is a mistake."""
    try:
        text = origin.read()
        return origin.decode(text), text
    except ConfigError as error:
        _echo_mistakes(error.mistakes)
        raise SystemExit(INVALID) from None


def _check_as_json(path: Path) -> None:
    try:
        loaded = load(path)
    except ConfigError as error:
        _echo_json(
            {"file": str(path), "valid": False, "mistakes": [asdict(mistake) for mistake in error.mistakes]}
        )
        raise SystemExit(INVALID) from None
    not_yet = [asdict(mistake) for mistake in unavailable(loaded)]
    _echo_json({"file": str(path), "valid": True, "mistakes": [], "unavailable": not_yet, **_counts(loaded)})


def _echo_mistakes(mistakes: Iterable[Mistake]) -> None:
    for mistake in mistakes:
        click.echo(str(mistake), err=True)


def _echo_json(value: Any) -> None:
    """Dates and times become text, as TOML writes them."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=toml_value))


def _summary(loaded: Config) -> str:
    counts = _counts(loaded).items()
    return ", ".join(f"{count} {noun.removesuffix('s') if count == 1 else noun}" for noun, count in counts)


def _counts(loaded: Config) -> dict[str, int]:
    versions = [version for model in loaded.models.values() for version in model.versions.values()]
    replicas = sum(len(version.replicas) for version in versions)
    return {"models": len(loaded.models), "versions": len(versions), "replicas": replicas}
