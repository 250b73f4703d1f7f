"""`turnout serve` as a process of its own, for as long as somebody needs it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

_READY_S = 20.0


class RouterDidNotStart(Exception):
    """The message says what it said."""


@contextlib.asynccontextmanager
async def router_running(config: Path) -> AsyncIterator[tuple[str, str]]:
    """Base URLs of the endpoint and of the admin listener. Raises `RouterDidNotStart`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router", "serve", "--config", str(config),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    reading = None
    try:
        addresses = await _addresses(process.stderr)
        reading = asyncio.create_task(_read_on(process.stderr))
        yield addresses
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading


async def _addresses(said: asyncio.StreamReader) -> tuple[str, str]:
    """The two URLs that `turnout serve` announces."""
    lines: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_S):
            while line := (await said.readline()).decode():
                lines.append(line)
                words = line.split()
                if "serves" in words:
                    return words[words.index("at") + 1].removesuffix("/v1,"), words[-1]
    raise RouterDidNotStart("the router did not start:\n" + "".join(lines))


async def _read_on(said: asyncio.StreamReader) -> None:
    """A pipe that nobody reads would stop the router once it is full."""
    while await said.read(65_536):
        pass
