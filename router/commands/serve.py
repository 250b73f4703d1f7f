"""`turnout serve`: run the router in the foreground until it is told to stop."""

import dataclasses
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import uvloop

from router.commands.configuration import read_or_exit
from router.compose import Router
from router.config.history import History
from router.config.model import Config
from router.config.origin import Origin
from router.config.reload import first_of
from router.serving.garbage import spare_what_is_loaded
from router.serving.server import Process


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), default=Path("turnout.toml"), show_default=True
)
@click.option("--host", help="Address to listen on, instead of [server] host.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, instead of [server] port.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes, instead of [server] workers.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def serve(path: Path, host: str | None, port: int | None, workers: int | None, log_level: str | None) -> None:
    """Serve the models of a configuration file, and follow it when it changes.

    \b
    Example: turnout serve --config turnout.toml --port 8080
    """
    options = partial(_with_options, host=host, port=port, workers=workers, log_level=log_level)
    origin = Origin(path, options)
    config, text = read_or_exit(origin)
    history = first_of(config, text)
    logging.basicConfig(
        level=config.server.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    for library in ("uvicorn", "httpx", "httpcore"):  # they would write a line for every probe
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        run = _run_workers if config.server.workers > 1 else _run_alone
        code = run(config, origin, history)
    except OSError as error:
        click.echo(f"cannot start: {error}", err=True)
        code = 1
    raise SystemExit(code)


def _run_alone(config: Config, origin: Origin, history: History) -> int:
    return uvloop.run(_run(config, origin, history))


async def _run(config: Config, origin: Origin, history: History) -> int:
    router = Router(config, origin=origin, history=history)
    spare_what_is_loaded()
    return await Process(router, config).run(_announce)


def _run_workers(config: Config, origin: Origin, history: History) -> int:
    from router.serving.several import serve_workers

    return serve_workers(config, origin, history, _announce)


def _announce(public: str, admin: str) -> None:
    click.echo(f"turnout serves at {public}/v1, admin at {admin}", err=True)


def _with_options(config: Config, **options: Any) -> Config:
    given = {name: value for name, value in options.items() if value is not None}
    return dataclasses.replace(config, server=dataclasses.replace(config.server, **given))
