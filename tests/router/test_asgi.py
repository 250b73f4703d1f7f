"""The app for other ASGI servers."""

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from router.asgi import AsgiApp, app
from router.config.source import ConfigError
from tests.support.loops import run_strictly
from tests.support.routers import config_text

VALID = config_text('url = "http://127.0.0.1:9", engine = "vllm"')


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "other.toml"
    monkeypatch.setenv("TURNOUT_CONFIG", str(path))
    return path


def test_the_configuration_that_the_environment_names(config: Path) -> None:
    """One app a call: nothing is made when the module is imported."""
    config.write_text(VALID)
    first, second = app(), app()
    assert isinstance(first, AsgiApp)
    assert first is not second


def test_without_a_name_it_is_the_usual_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `turnout serve` has it."""
    monkeypatch.delenv("TURNOUT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"turnout\.toml"):
        app()
    Path("turnout.toml").write_text(VALID)
    assert isinstance(app(), AsgiApp)


@pytest.mark.parametrize("more", ["[server]\nport = 'x'", "[retries]\ncontinue_streams = true"])
def test_a_configuration_that_cannot_be_served(config: Path, more: str) -> None:
    """Every mistake with its line, and what is not available yet: the server does not start."""
    text = VALID.replace("[server]\nport = 0", more) if "[server]" in more else VALID + more
    config.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.toml:\d+: "):
        app()


def test_a_server_that_cancels_the_lifespan_leaves_nothing_running(config: Path) -> None:
    """What waits to be told to Redis is told, and no task outlives its router."""
    config.write_text(VALID)

    async def run() -> None:
        told: list[MutableMapping[str, Any]] = []
        asked, started = iter([{"type": "lifespan.startup"}]), asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            for message in asked:
                return message
            started.set()
            return await asyncio.get_running_loop().create_future()

        async def send(message: MutableMapping[str, Any]) -> None:
            told.append(message)

        life = asyncio.ensure_future(app()({"type": "lifespan"}, receive, send))
        await started.wait()
        life.cancel()
        with pytest.raises(asyncio.CancelledError):
            await life
        assert [each["type"] for each in told] == ["lifespan.startup.complete"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_strictly(run())
