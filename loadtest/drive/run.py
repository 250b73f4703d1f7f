"""A contender driven: its replicas as engines, `turnout serve` before them, the workload's clients."""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from time import monotonic
from typing import Final

import httpx

from loadtest.drive.client import Clients, clients_of
from loadtest.drive.engines import MODEL, engines_running
from loadtest.drive.fleet import driven_config
from loadtest.drive.pace import Lateness, Pace
from loadtest.drive.prompts import bodies_of
from loadtest.router_process import RouterDidNotStart, router_running
from loadtest.simulate.contender import Contender, Result, result_of
from loadtest.simulate.results import Served, Slo
from loadtest.simulate.workload import Workload
from router.config.model import Config
from router.config.show import to_toml

_READY_S: Final = 20.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Subject:
    """A contender, and the configuration that it was made of."""

    contender: Contender
    config: Config
    policy: str
    """What the configuration calls it."""


@dataclass(frozen=True, slots=True)
class Driven:
    """What the clients saw, and how well this machine kept up."""

    result: Result
    lateness: Lateness
    on_the_way_s: float
    """The mean TTFT less that of the engines: sockets, router, tokenizer, late timers. nan without any."""


async def drive(subject: Subject, workload: Workload, slo: Slo, tell: Callable[[], object]) -> Driven:
    """A `drivable` workload in real time; `tell` is called after each request. Raises RouterDidNotStart."""
    setup = subject.contender.setup
    bodies = bodies_of(workload, MODEL)
    async with engines_running(setup, workload.block_tokens) as engines:
        config = driven_config(subject.config, subject.policy, setup.replicas, engines.urls)
        with tempfile.TemporaryDirectory(prefix="turnout-drive-") as folder:
            path = _written(Path(folder, "turnout.toml"), to_toml(config))
            async with router_running(path) as (endpoint, _), clients_of(endpoint) as client:
                await _until_ready(client, config.scrape.interval_s)
                clients = Clients(client, monotonic(), tell)
                await clients.play(workload, bodies)
                wall_s = monotonic() - clients.started_at
    result = result_of(subject.contender, clients.served, slo, len(workload), wall_s)
    return Driven(result, engines.pace.lateness, _on_the_way_s(clients.served, engines.pace))


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


async def _until_ready(client: httpx.AsyncClient, scrape_interval_s: float) -> None:
    """Until there is a replica, and the metrics of all of them were read."""
    deadline = monotonic() + _READY_S
    while (await client.get("/readyz")).status_code != httpx.codes.OK:
        if monotonic() > deadline:
            raise RouterDidNotStart("the router found no replica ready")
        await asyncio.sleep(_POLL_S)
    await asyncio.sleep(2 * scrape_interval_s)


def _on_the_way_s(served: list[Served], pace: Pace) -> float:
    ttft_s = [one.ttft_s for one in served if one.ttft_s is not None]
    if not ttft_s or not pace.first_tokens_s:
        return nan
    return sum(ttft_s) / len(ttft_s) - sum(pace.first_tokens_s) / len(pace.first_tokens_s)
