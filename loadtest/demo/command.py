"""The `demo` command: runs the fleet and the traffic, and tells what happened."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import httpx
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.demo.fleet import MODEL, DemoFleet, demo_fleet
from loadtest.demo.report import print_report
from loadtest.demo.traffic import Turn, drive
from loadtest.router_process import RouterDidNotStart
from router.admin.limits import LimitsView

_MODELS = {MODEL: 6.0, "gpt-4o-mini": 2.0, f"{MODEL}@v2": 2.0}


class DemoFailed(Exception):
    """Requests failed."""


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(1), default=6.0, show_default=True, help="How long to send traffic."
)
@click.option(
    "--clients", type=click.IntRange(1, 200), default=12, show_default=True, help="Conversations at a time."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port for clients; default: a free one."
)
@click.option("--admin-port", type=click.IntRange(0, 65535), default=0, help="Port of the admin listener.")
@click.option("--keep", is_flag=True, help="Stay up afterwards, until Ctrl-C.")
def demo(seconds: float, clients: int, port: int, admin_port: int, keep: bool) -> None:
    """Show a router in front of a mixed fleet: simulated vLLM, TGI, trtllm-serve and Triton replicas.

    \b
    Example:
      turnout demo --keep
    """
    console = Console()
    try:
        asyncio.run(_demo(console, seconds, clients, (port, admin_port), keep=keep))
    except KeyboardInterrupt:
        console.print("\nstopped")
    except (DemoFailed, RouterDidNotStart) as error:
        raise click.ClickException(str(error)) from None


async def _demo(
    console: Console, seconds: float, clients: int, ports: tuple[int, int], *, keep: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder:
        console.print("starting 7 simulated replicas of 4 engines, and the router ...")
        async with demo_fleet(Path(folder), *ports) as fleet:
            turns = await _traffic(console, fleet, seconds, clients)
            print_report(console, fleet, turns, await _replica_figures(fleet), await _limits(fleet))
            if any((turn.error or turn.status != 200) and not turn.refused for turn in turns):
                raise DemoFailed("some requests failed; the table above says which")
            if keep:
                console.print("\n[bold]everything stays up; Ctrl-C ends it[/]")
                await asyncio.Event().wait()


async def _traffic(console: Console, fleet: DemoFleet, seconds: float, clients: int) -> Sequence[Turn]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sending chat traffic", total=seconds, said="")
        began = asyncio.get_running_loop().time()
        tokens = answers = 0

        def tell(turn: Turn) -> None:
            nonlocal tokens, answers
            answers += 1
            tokens += turn.completion_tokens
            elapsed = asyncio.get_running_loop().time() - began
            progress.update(task, completed=elapsed, said=f"{answers} answers, {tokens} tokens")

        turns = await drive(fleet.endpoint, _MODELS, seconds, clients, tell)
        progress.update(task, completed=seconds)
    return turns


async def _replica_figures(fleet: DemoFleet) -> dict[str, dict[str, object]]:
    """What the admin listener says of each replica, by its id."""
    async with httpx.AsyncClient(timeout=5) as client:
        listed = (await client.get(f"{fleet.admin}/api/replicas")).json()
    return {replica["id"]: replica for replica in listed["replicas"]}


async def _limits(fleet: DemoFleet) -> LimitsView:
    async with httpx.AsyncClient(timeout=5) as client:
        return msgspec.json.decode((await client.get(f"{fleet.admin}/api/limits")).content, type=LimitsView)
