"""A router of several processes for a test, and which of them has which connection."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx

from tests.support.raw_client import RawClient
from tests.support.router_process import RouterProcess, router_process

_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


class Workers:
    """A running router. `admin` asks its admin listener."""

    def __init__(self, router: RouterProcess, admin: httpx.AsyncClient) -> None:
        self.router = router
        self.admin = admin
        self.port = int(router.url.rpartition(":")[2])
        self.seen: set[int] = set()

    @property
    def children(self) -> list[int]:
        """The processes of the supervisor, the oldest first: the overview, then the workers."""
        pid = self.router.process.pid
        found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        self.seen.update(found)
        return found

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        text = (await self.admin.get("/metrics")).text
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        samples = [match for match in _SAMPLE.finditer(text) if match[1] == name]
        return sum(float(match[3]) for match in samples if wanted <= set((match[2] or "").split(",")))

    async def until_answers(self) -> None:
        """The admin listener serves, after it did not."""
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await self.admin.get("/api/status")
                    return
                await asyncio.sleep(0.02)

    async def until_gone(self, pid: int) -> None:
        await self.until(lambda: pid not in self.children)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_metric(self, name: str, value: float, timeout_s: float = 10.0, **labels: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while await self.metric(name, **labels) != value:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{name} is {await self.metric(name, **labels)}, not {value}") from None

    async def replicas(self) -> dict[str, dict[str, object]]:
        """`/api/replicas` by id."""
        listed = (await self.admin.get("/api/replicas")).json()["replicas"]
        return {each["id"]: each for each in listed}

    def owner(self, client: RawClient) -> int:
        """Which process has the other end of this connection, once it has been accepted."""
        port = client.writer.get_extra_info("sockname")[1]
        inodes = [
            fields[9]
            for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
            if fields[1].endswith(f":{self.port:04X}") and fields[2].endswith(f":{port:04X}")
        ]
        for pid in self.children:
            if any(f"socket:[{inode}]" in _open_files(pid) for inode in inodes):
                return pid
        raise LookupError(f"nobody has the connection from port {port}")


def _open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    return found


@contextlib.asynccontextmanager
async def workers(text: str, folder: Path, *, leaves_with: int = 0) -> AsyncIterator[Workers]:
    """`text` is a configuration with `workers`. After its end on SIGTERM no process may be left."""
    manager = router_process(text, folder, leaves_with=leaves_with)
    router = await asyncio.to_thread(manager.__enter__)
    async with httpx.AsyncClient(base_url=router.admin_url, trust_env=False, timeout=10) as admin:
        running = Workers(router, admin)
        try:
            yield running
        except BaseException:
            router.process.kill()  # its children see that, and drain
            raise
        finally:
            await asyncio.to_thread(manager.__exit__, *sys.exc_info())
    assert not [pid for pid in running.seen if alive(pid)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
