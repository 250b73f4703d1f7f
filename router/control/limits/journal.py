"""What has to be written to Redis and nobody waits for: kept until it is acknowledged, across outages.

Every entry has an id by which Redis takes it once, so what may have arrived is simply sent again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count, groupby
from typing import Any, NamedTuple

from policies.limits.ask import Ask
from router.control.limits.failures import Failure, Kind
from router.control.limits.node import Node
from router.control.limits.scripts import Scripts, reservation_key, tag_of

COLLECT_S = 0.003
AGAIN_S = 0.25
MOST = 65_536
PER_CALL = 32
"""Settlements in one call: about 0.2 ms in which the server does nothing else."""


class Entry(NamedTuple):
    """A settlement; or with `forced` an ask whose answer is yes: what was used while Redis was away."""

    tag: str
    keys: Sequence[str]
    args: Sequence[str | int]
    forced: Ask | None = None


class Numbered(NamedTuple):
    """What failed goes back to its place."""

    number: int
    entry: Entry


def settlement(ask: Ask, shifts_us: Sequence[int], *, gives_back: bool = False) -> Entry:
    """`gives_back`: nobody knows whether the ask arrived."""
    keys = [reservation_key(ask)]
    shifts = []
    for budget, shift_us in zip(ask.budgets, shifts_us, strict=True):
        if shift_us:
            keys.append(budget.key)
            shifts.append(shift_us)
    keys += [slots.key for slots in ask.slots]
    return Entry(tag_of(ask), keys, (int(gives_back), len(shifts), len(ask.slots), *shifts))


def cancellation(ask: Ask) -> Entry:
    """Takes an admission back that was perhaps never made."""
    return settlement(ask, [-budget.cost_us for budget in ask.budgets], gives_back=True)


def forced(ask: Ask) -> Entry:
    return Entry(tag_of(ask), (), (), ask)


class Batch:
    """Entries on their way to one node."""

    __slots__ = ("_journal", "entries", "node", "sent_at", "tick")

    def __init__(self, journal: "Journal", node: Node, entries: Sequence[Numbered]) -> None:
        self.sent_at = 0.0
        self.tick = 0
        self.entries = entries
        self._journal = journal
        self.node = node

    def answer(self, reply: Any) -> None:
        if isinstance(reply, Failure):
            self._journal.failed(self, reply)
        else:
            self._journal.written(self, reply)

    def expire(self, _: Failure) -> bool:
        """Nobody waits."""
        return False


class Journal:
    """Bounded: where too much waits, the oldest is given up and counted."""

    def __init__(
        self,
        scripts: Scripts,
        node_of: Callable[[str], Node],
        moved: Callable[[Node, Failure], None],
        before_writing: Callable[[], None],
    ) -> None:
        """`before_writing` is called before each round: it may put more."""
        self.unknown = 0
        self.dropped = 0
        self._scripts = scripts
        self._node_of = node_of
        self._moved = moved
        self._before_writing = before_writing
        self._unsent: deque[Numbered] = deque()
        self._numbers = count()
        self._in_order = True
        self._on_its_way = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._unsent) + self._on_its_way

    def put(self, entry: Entry) -> None:
        if len(self._unsent) >= MOST:
            self._unsent.popleft()
            self.dropped += 1
        self._unsent.append(Numbered(next(self._numbers), entry))
        if self._timer is None:
            self.write_soon()

    def write_soon(self, delay_s: float = COLLECT_S) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.write)

    def write(self) -> None:
        """Send all that can be sent now."""
        self.stop()
        self._before_writing()
        if not self._worth_it():
            return
        unsent = self._unsent if self._in_order else sorted(self._unsent)
        self._unsent, self._in_order = deque(), True
        places: dict[tuple[Node, str], list[Numbered]] = {}
        for each in unsent:
            tag = each.entry.tag
            node = self._node_of(tag)
            if node.here:
                places.setdefault((node, tag if node.clustered else ""), []).append(each)
            else:
                self._unsent.append(each)
        for (node, _), entries in places.items():
            for some in _batches(entries):
                self._send(Batch(self, node, some))
        if self._unsent:
            self.write_soon(AGAIN_S)

    def _worth_it(self) -> bool:
        """A server that is in no cluster says when it is back."""
        if not self._unsent:
            return False
        node = self._node_of(self._unsent[0].entry.tag)
        return node.here or node.clustered

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def written(self, batch: Batch, reply: Any) -> None:
        self._on_its_way -= len(batch.entries)
        if batch.entries[0].entry.forced is None:
            self.unknown += reply

    def failed(self, batch: Batch, failure: Failure) -> None:
        self._on_its_way -= len(batch.entries)
        if failure.kind is Kind.UNKNOWN_SCRIPT:
            self._send(Batch(self, batch.node, batch.entries), whole=True)
        elif failure.kind is Kind.DEFECT:
            # It would fail again, and hold up all that follow.
            self.dropped += len(batch.entries)
            batch.node.failed(failure)
        else:
            self._unsent.extendleft(batch.entries)
            self._in_order = False
            self.write_soon(AGAIN_S)
            if failure.kind in (Kind.MOVED, Kind.ASK):
                self._moved(batch.node, failure)
            else:
                batch.node.failed(failure)

    def _send(self, batch: Batch, *, whole: bool = False) -> None:
        self._on_its_way += len(batch.entries)
        batch.node.post(self._command(batch.entries, whole=whole), batch)

    def _command(self, entries: Sequence[Numbered], *, whole: bool) -> bytes:
        ask = entries[0].entry.forced
        if ask is not None:
            return self._scripts.admission(ask, "force", whole=whole)
        keys: list[str] = []
        args: list[str | int] = []
        for _, entry in entries:
            keys += entry.keys
            args += entry.args
        return self._scripts.settle.call(keys, args, whole=whole)


def _batches(entries: Sequence[Numbered]) -> Iterator[Sequence[Numbered]]:
    """In their order; one forced ask a call."""
    for is_forced, group in groupby(entries, lambda each: each.entry.forced is not None):
        some = list(group)
        size = 1 if is_forced else PER_CALL
        for start in range(0, len(some), size):
            yield some[start : start + size]
