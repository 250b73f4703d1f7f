"""The store of a router's workers: as any store, and it looks after what nobody asks for."""

from pathlib import Path

from policies.limits.ask import Ask, Budget, Slots
from router.control.limits.local import monotonic_us
from router.control.limits.shared_book import SharedBook
from router.control.limits.shared_store import SharedStore
from tests.support.loops import run_strictly
from tests.support.scripted_server import until
from tests.support.shared_books import PATIENT_US, SMALL, colleague, shared_book

ASK = Ask("", [Budget("r", 30_000_000, 60_000_000)], [Slots("c", 2)])


def test_two_stores_are_one(tmp_path: Path) -> None:
    """What one reserved, the other sees until it is settled."""

    async def run() -> None:
        one, two = (SharedStore(SharedBook(tmp_path, SMALL, patience_us=PATIENT_US)) for _ in range(2))
        for store in (one, two):
            await store.start()
        reservation = await one.admit(ASK)
        assert reservation.verdict.held == [1]
        assert (await two.look(ASK)).held == [2]
        reservation.settle([-30_000_000])
        looked = await two.look(ASK)
        assert (looked.held, looked.backlogs_us) == ([1], [30_000_000])
        assert (one.state.healthy, one.state.place) == (True, "memory of this host")
        for store in (one, two):
            await store.close()

    run_strictly(run(), uv=True)


def test_the_dead_are_buried_though_nobody_asks(tmp_path: Path) -> None:
    async def run() -> None:
        store = SharedStore(SharedBook(tmp_path, SMALL, patience_us=PATIENT_US))
        await store.start()
        with shared_book(tmp_path, takes_part=False) as looking, colleague(tmp_path) as other:
            other.admit(ASK, monotonic_us())
            other.kill()
            assert looking._buckets.held("c") == 1
            await until(lambda: looking._buckets.held("c") == 0)
        await store.close()

    run_strictly(run())


def test_what_was_taken_while_another_was_stopped_is_told_though_nobody_asks(tmp_path: Path) -> None:
    async def run() -> None:
        store = SharedStore(SharedBook(tmp_path, SMALL, patience_us=1000))
        await store.start()
        with colleague(tmp_path) as other:
            other.stop_with_the_lock()
            await store.admit(Ask("", (), [Slots("c", 2)]))
            assert not store.state.healthy
            other.go_on()
            await until(lambda: store.state.healthy and not store.state.unsettled)
            assert other.admit(ASK, monotonic_us()).held == [2]
        await store.close()

    run_strictly(run())
