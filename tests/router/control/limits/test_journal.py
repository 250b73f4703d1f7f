"""What waits to be written: in its order, whatever fails."""

import asyncio
from typing import Any, cast

from policies.limits.ask import Ask, Budget
from router.control.limits.failures import Failure, Kind
from router.control.limits.journal import Batch, Journal, forced, settlement
from router.control.limits.node import Node
from router.control.limits.scripts import Scripts
from tests.support.loops import run_strictly

AWAY = Failure(Kind.AWAY, "gone")


class Sink:
    """A node that takes everything and answers when told to."""

    here = True
    clustered = False

    def __init__(self) -> None:
        self.sent: list[Batch] = []

    def post(self, _: bytes, pending: Any) -> None:
        self.sent.append(pending)

    def failed(self, _: Failure) -> None:
        """It stays."""


def ask(number: int) -> Ask:
    return Ask(str(number), [Budget("turnout:{t:a}:l:r", 5, 10)])


def ids(sink: Sink) -> list[str]:
    return [
        each.entry.forced.id if each.entry.forced else each.entry.keys[0][-1]
        for batch in sink.sent
        for each in batch.entries
    ]


def journal_of(sink: Sink) -> Journal:
    return Journal(Scripts(900), lambda _: cast("Node", sink), lambda *_: None, lambda: None)


def test_what_failed_is_sent_again_in_its_order() -> None:
    """An adoption before its settlement, and both before what came later."""

    async def run() -> None:
        sink = Sink()
        journal = journal_of(sink)
        journal.put(forced(ask(1)))
        journal.put(settlement(ask(2), [1]))
        journal.put(forced(ask(3)))
        journal.write()
        assert ids(sink) == ["1", "2", "3"]
        for batch in sink.sent[:]:
            batch.answer(AWAY)
        journal.put(settlement(ask(4), [1]))
        sink.sent.clear()
        journal.write()
        assert ids(sink) == ["1", "2", "3", "4"]
        assert len(journal) == 4
        for batch in sink.sent[:]:
            batch.answer([-1] if batch.entries[0].entry.forced else 0)
        assert len(journal) == 0
        journal.stop()

    run_strictly(run())


def test_settlements_share_a_call() -> None:
    async def run() -> None:
        sink = Sink()
        journal = journal_of(sink)
        for number in range(70):
            journal.put(settlement(ask(number), [-5]))
        await asyncio.sleep(0.05)
        assert [len(batch.entries) for batch in sink.sent] == [32, 32, 6]
        journal.stop()

    run_strictly(run())


def test_what_the_server_will_never_take_is_given_up() -> None:
    async def run() -> None:
        sink = Sink()
        journal = journal_of(sink)
        journal.put(settlement(ask(1), [-5]))
        journal.write()
        sink.sent[0].answer(Failure(Kind.DEFECT, "WRONGTYPE"))
        assert (len(journal), journal.dropped) == (0, 1)
        journal.stop()

    run_strictly(run())
