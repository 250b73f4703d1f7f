"""A worker that follows: what was put in force for all it serves by, once, and as soon as it can."""

import logging
from pathlib import Path

import pytest
from msgspec import structs

from router.config.history import ConfigState, Generation, History
from router.config.model import Config
from router.config.origin import Origin
from router.config.published import Published
from router.serving.following import Follower
from tests.support.configs import MODEL
from tests.support.loops import StrictLoop

SECRET = MODEL.replace('"vllm" }', '"vllm", api_key = "file:secret" }')


def test_it_serves_by_what_is_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be used here yet is said once, and tried again; meanwhile what was before stays."""
    published, state = Published(tmp_path), ConfigState()
    applied: list[Config] = []
    history = History([Generation(number=1, at=0.0, why="start", text=MODEL, shown=MODEL)])

    async def apply(config: Config) -> None:
        applied.append(config)

    async def test() -> None:
        follower = Follower(published, Origin(tmp_path / "t.toml"), apply, state)
        published.write(history)
        await follower.look()
        assert (applied, state.generation) == ([], 1)
        history.add(structs.replace(history.in_force, number=2, text=SECRET))
        published.write(history)
        for _ in range(3):
            await follower.look()
        assert (applied, state.generation) == ([], 1)
        assert len([each for each in caplog.messages if "the file 'secret' cannot be read" in each]) == 1
        (tmp_path / "secret").write_text("s3cret")
        for _ in range(3):
            await follower.look()
        assert (len(applied), state.generation) == (1, 2)

    with caplog.at_level(logging.ERROR), StrictLoop() as loop:
        loop.run(test(), may_say="cannot be used by this worker")
