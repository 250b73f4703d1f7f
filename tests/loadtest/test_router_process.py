import asyncio
from pathlib import Path

import pytest

from loadtest.router_process import RouterDidNotStart, router_running


async def start(config: Path) -> None:
    async with router_running(config):
        pass


def test_a_router_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    config = tmp_path / "turnout.toml"
    config.write_text("[server]\nport = 70000\n")
    with pytest.raises(RouterDidNotStart, match=r"server\.port"):
        asyncio.run(start(config))
