"""A file that changes: taken over as a whole, or refused aloud with nothing changed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.config.history import ConfigState, History, NoSuchGeneration
from router.config.model import Config
from router.config.origin import Origin
from router.config.reload import Reloader, first_of
from router.config.source import ConfigError
from tests.support.configs import MODEL
from tests.support.scripted_server import until
from tests.test_example_config import damaged

OTHER = MODEL.replace("10.0.0.1", "10.0.0.2")
SERVED = "[timeouts]\ntotal_s = 5\n[retries]\nmax_attempts = 2\n" + MODEL


class Bench:
    """A reloader, its file, and what it has applied and published. `fails`: what applying raises."""

    def __init__(self, file: Path, text: str = MODEL, history: History | None = None) -> None:
        self.file = file
        file.write_text(text)
        self.origin = Origin(file)
        self.applied: list[Config] = []
        self.published: list[int] = []
        self.state = ConfigState()
        self.fails: Exception | None = None
        first = self.origin.decode(text if history is None else history.in_force.text)
        self.reloader = Reloader(
            first,
            self._apply,
            self.state,
            self.origin,
            history=history or first_of(first, text),
            publish=lambda history: self.published.append(history.in_force.number),
        )

    async def _apply(self, config: Config) -> None:
        if self.fails is not None:
            raise self.fails
        self.applied.append(config)

    async def ask(self, text: str | None = None) -> None:
        """An operator asks for the file, perhaps with another text."""
        if text is not None:
            self.file.write_text(text)
        await self.reloader._consider(self.origin, asked=True)

    @property
    def urls(self) -> list[str]:
        """Of the first replica, in each configuration that was applied."""
        return [config.models["m"].versions["v1"].replicas[0].url for config in self.applied]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_a_change_is_noticed(tmp_path: Path) -> None:
    """Without anybody's asking; once, and the file that was there from the start is none."""
    bench = Bench(tmp_path / "t.toml")

    async def test() -> None:
        watching = asyncio.create_task(bench.reloader.run())
        bench.file.write_text(OTHER)
        await until(lambda: bench.state.generation == 2)
        await asyncio.sleep(0.7)  # two more looks
        watching.cancel()

    run(test)
    assert bench.urls == ["http://10.0.0.2:8000"]
    assert bench.published == [2]
    assert [each.why for each in bench.reloader.history.generations] == ["start", "the file changed"]


def test_whatever_is_wrong_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """200 damaged files: each that is refused has its mistakes told, with file and line, and none is applied."""
    bench = Bench(tmp_path / "t.toml", SERVED)
    refused = 0

    async def test() -> None:
        nonlocal refused
        for seed in range(1000):
            if refused == 200:
                return
            applied = len(bench.applied)
            caplog.clear()
            await bench.ask(damaged(SERVED, Random(seed)))
            if not bench.state.reload_failed:
                continue
            refused += 1
            assert len(bench.applied) == applied
            assert bench.state.mistakes
            assert all(f"{bench.file}:" in mistake for mistake in bench.state.mistakes)
            assert set(bench.state.mistakes) <= {record.getMessage() for record in caplog.records}
            assert bench.reloader.history.in_force.text != bench.file.read_text()

    with caplog.at_level(logging.ERROR):
        run(test)
    assert refused == 200


def test_what_cannot_be_applied_changes_nothing(tmp_path: Path) -> None:
    """It is told, too; and asked again, it may be possible."""
    bench = Bench(tmp_path / "t.toml")

    async def test() -> None:
        bench.fails = OSError("no space left")
        await bench.ask(OTHER)
        assert bench.state.generation == 1
        assert bench.state.mistakes == (f"{bench.file}: cannot be applied: no space left",)
        bench.fails = None
        await bench.ask()

    run(test)
    assert (bench.state.generation, bench.state.reload_failed, bench.state.mistakes) == (2, False, ())


def test_what_needs_a_restart_is_refused_as_a_whole(tmp_path: Path) -> None:
    """Also what else the file says."""
    bench = Bench(tmp_path / "t.toml")
    run(lambda: bench.ask("[server]\nport = 9000\n" + OTHER))
    assert bench.applied == []
    assert bench.state.mistakes == (
        f"{bench.file}:2: server.port: 8080 -> 9000; a listener cannot move while it serves: restart",
    )


def test_other_words_are_no_other_configuration(tmp_path: Path) -> None:
    """No new generation; a process that comes later finds the file as it is."""
    bench = Bench(tmp_path / "t.toml")
    run(lambda: bench.ask(MODEL + "# a word\n"))
    assert (bench.applied, bench.state.generation) == ([], 1)
    assert bench.reloader.history.in_force.text.endswith("# a word\n")


def test_a_file_that_comes_back_is_well_again(tmp_path: Path) -> None:
    """Gone it is refused, and what was in force stays; back with the same text there is nothing to refuse."""
    bench = Bench(tmp_path / "t.toml")

    async def test() -> None:
        bench.file.unlink()
        await bench.ask()
        assert bench.state.mistakes == (f"{bench.file}: cannot be read: No such file or directory",)
        bench.file.write_text(MODEL)
        await bench.reloader._consider(bench.origin, asked=False)

    run(test)
    assert (bench.state.reload_failed, bench.state.generation) == (False, 1)


def test_the_way_back(tmp_path: Path) -> None:
    """Until the file says something else, or is asked for."""
    bench = Bench(tmp_path / "t.toml")

    async def test() -> None:
        await bench.ask(OTHER)
        await bench.reloader.rollback(1)
        assert (bench.state.generation, bench.state.rolled_back_to) == (3, 1)
        await bench.reloader._consider(bench.origin, asked=False)
        assert bench.state.generation == 3
        await bench.ask()
        assert (bench.state.generation, bench.state.rolled_back_to) == (4, None)
        with pytest.raises(NoSuchGeneration, match="there is no generation 9; there are 1 to 4"):
            await bench.reloader.rollback(9)

    run(test)
    assert bench.urls == ["http://10.0.0.2:8000", "http://10.0.0.1:8000", "http://10.0.0.2:8000"]


def test_a_way_back_that_is_gone(tmp_path: Path) -> None:
    """What an earlier text refers to may not be there any more: it is refused, and nothing changes."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    bench = Bench(tmp_path / "t.toml", MODEL.replace('"vllm" }', '"vllm", api_key = "file:secret" }'))

    async def test() -> None:
        await bench.ask(MODEL)
        secret.unlink()
        with pytest.raises(ConfigError, match="the file 'secret' cannot be read"):
            await bench.reloader.rollback(1)

    run(test)
    assert (bench.state.generation, bench.state.rolled_back_to) == (2, None)


def test_a_process_that_comes_later_goes_on(tmp_path: Path) -> None:
    """With the same number, and it does not take the file that was passed over for a change."""
    bench = Bench(tmp_path / "t.toml")

    async def test() -> None:
        await bench.ask(OTHER)
        await bench.reloader.rollback(1)
        later = Bench(bench.file, OTHER, bench.reloader.history)
        assert (later.state.generation, later.state.rolled_back_to) == (3, 1)
        await later.reloader._consider(later.origin, asked=False)
        assert later.applied == []
        later.file.write_text(OTHER + "# a word\n")
        await later.reloader._consider(later.origin, asked=False)
        assert (later.state.generation, later.state.rolled_back_to) == (4, None)

    run(test)


def test_what_is_shown_holds_no_secret(tmp_path: Path) -> None:
    """References stay as they stand in the file; what stands there itself is masked."""
    keys = '"vllm", api_key = "inl1ne-k3y" }'
    bench = Bench(tmp_path / "t.toml", MODEL.replace('"vllm" }', keys))
    shown = bench.reloader.history.in_force.shown
    assert "inl1ne-k3y" not in shown
    assert 'api_key = "********"' in shown
