"""Which store a process gets, by its configuration and its seat."""

import asyncio
from pathlib import Path

import pytest

from policies.limits.ask import Ask, Slots
from router.config.decode import decode
from router.config.model import Config
from router.control.limits.build import build_store
from router.control.limits.local import LocalStore
from router.control.limits.shared_store import SharedStore
from router.control.limits.store import LimitStore
from router.control.membership import Seat
from router.control.messages import Member
from tests.support.configs import MODEL

LIMITED = MODEL + '[[limits]]\nname = "l"\nconcurrency = 9\n'
ASK = Ask("", (), [Slots("c", 9)])


def config(text: str, workers: int = 1) -> Config:
    return decode(f"[server]\nworkers = {workers}\n{text}", "t.toml", environ={})


def seat(number: int, folder: Path) -> Seat:
    return Seat(number, Member(1, number, 0), folder, b"")


def built(text: Config, at: Seat | None) -> LimitStore:
    store = build_store(text, at)
    assert store is not None
    return store


def test_no_limits_no_store(tmp_path: Path) -> None:
    assert build_store(config(MODEL, 2), seat(1, tmp_path)) is None
    assert build_store(config(MODEL), None) is None
    assert not list(tmp_path.iterdir())


def test_one_process_counts_in_its_own_memory() -> None:
    store = built(config(LIMITED), None)
    assert type(store) is LocalStore
    assert store.state.place == "this process"


def test_workers_count_together_and_the_overview_looks(tmp_path: Path) -> None:
    """Whoever comes first, and all of them with the same geometry."""

    async def run() -> None:
        text = config(LIMITED, 40)
        overview, *workers = (built(text, seat(number, tmp_path)) for number in range(41))
        assert all(type(store) is SharedStore for store in (overview, *workers))
        for taken, store in enumerate(workers[:9]):
            assert (await store.admit(ASK)).verdict.held == [taken + 1]
        assert not (await workers[40 - 1].admit(ASK)).verdict.admitted
        assert (await overview.look(ASK)).held == [9]
        assert isinstance(overview, SharedStore)
        assert overview._shared._buckets.share() == (41, 40)  # forty, and one who does not count
        for store in (overview, *workers):
            await store.close()

    asyncio.run(run())


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        build_store(config(LIMITED, 2), seat(1, tmp_path / "away"))
