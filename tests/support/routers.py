"""A whole router in this process, on free ports, for as long as a test needs it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from router.compose import Router
from router.config.decode import decode
from router.config.model import Config
from router.config.origin import Origin
from router.config.reload import first_of
from router.serving.server import Process


@dataclass(frozen=True, slots=True)
class RunningRouter:
    router: Router
    process: Process
    url: str
    admin_url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def config_text(
    *replicas: str, policy: str = "round_robin", more: str = "", server: str = "", version: str = ""
) -> str:
    """A configuration with one model `m` of one version; `replicas` are inline tables."""
    listed = ",\n".join(f"  {{ {replica} }}" for replica in replicas)
    return f"""
[server]
port = 0
settle_s = 0
access_log = "off"
{server}
[admin]
port = 0
{more}
[models.m]
stable = "v1"
policy = "{policy}"
[models.m.versions.v1]
served_name = "served"
{version}
replicas = [
{listed}
]
"""


def _written(text: str, file: Path) -> tuple[Config, Origin]:
    file.write_text(text)
    origin = Origin(file)
    return origin.decode(text), origin


@contextlib.asynccontextmanager
async def running_router(text: str, file: Path | None = None) -> AsyncIterator[RunningRouter]:
    """`text` is a configuration; its ports should be 0. It follows `file`, into which that is written."""
    config, origin = (decode(text, Path("test.toml")), None) if file is None else _written(text, file)
    router = Router(config, origin=origin, history=first_of(config, text))
    process = Process(router, config)
    addresses: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(process.run(lambda public, admin: addresses.set_result((public, admin))))
    await asyncio.wait({serving, addresses}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    url, admin_url = addresses.result()
    try:
        yield RunningRouter(router, process, url, admin_url)
    finally:
        process.stop()
        process.stop()
        await asyncio.wait_for(serving, 10)
