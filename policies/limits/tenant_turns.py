"""One priority class: tenants take turns by tokens, and each tenant's requests go by their deadlines."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

from policies.limits.priority import Priority

QUANTUM: Final = 256
"""Tokens that a tenant may use in a turn: short ones mix well, and one without effect costs some 0.5 us."""
_LEAST_SWEPT: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """One request in the queue. `kind` says which replicas it can use: those of one kind use the same.

    `tokens` are what it is estimated to cost, prompt and answer; `bytes` what it holds in memory meanwhile.
    It is out at `expires_at`, seconds.
    """

    tenant: str
    priority: Priority
    tokens: int
    bytes: int
    expires_at: float
    kind: Hashable = None


class _Heap:
    """The earliest first. Who was removed is skipped, and swept when half of the heap is such."""

    __slots__ = ("_entries", "_is_there")

    def __init__(self, is_there: Callable[[Waiting], bool]) -> None:
        self._entries: list[tuple[float, int, Waiting]] = []
        self._is_there = is_there

    def push(self, waiting: Waiting, serial: int, alive: int) -> None:
        """`alive`: how many of the entries, this one included, are still there."""
        heappush(self._entries, (waiting.expires_at, serial, waiting))
        if len(self._entries) > 2 * alive + _LEAST_SWEPT:
            self._entries = [entry for entry in self._entries if self._is_there(entry[2])]
            heapify(self._entries)

    def first(self) -> tuple[float, int, Waiting] | None:
        while self._entries and not self._is_there(self._entries[0][2]):
            heappop(self._entries)
        return self._entries[0] if self._entries else None

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


class Tenant:
    """What one tenant has in one class, by kind."""

    __slots__ = ("_is_there", "_kinds", "_requests", "bytes", "deficit", "name", "tokens")

    def __init__(self, name: str, is_there: Callable[[Waiting], bool]) -> None:
        self.name = name
        self.deficit = 0
        """Tokens that it may use and has not."""
        self.tokens = 0
        self.bytes = 0
        self._requests = 0
        self._kinds: dict[Hashable, _Heap] = {}
        self._is_there = is_there

    def __len__(self) -> int:
        return self._requests

    def add(self, waiting: Waiting, serial: int) -> None:
        self._count(waiting, 1)
        heap = self._kinds.get(waiting.kind)
        if heap is None:
            heap = self._kinds[waiting.kind] = _Heap(self._is_there)
        heap.push(waiting, serial, self._requests)

    def removed(self, waiting: Waiting) -> None:
        self._count(waiting, -1)

    def head(self, fits: Callable[[Hashable], bool] | None) -> Waiting | None:
        """The earliest for which there is room."""
        best: tuple[float, int, Waiting] | None = None
        for kind, heap in list(self._kinds.items()):
            first = heap.first()
            if first is None:
                del self._kinds[kind]
            elif (best is None or first < best) and (fits is None or fits(kind)):
                best = first
        return None if best is None else best[2]

    def _count(self, waiting: Waiting, sign: int) -> None:
        self._requests += sign
        self.tokens += sign * waiting.tokens
        self.bytes += sign * waiting.bytes


class TenantTurns:
    """The requests of one class."""

    __slots__ = ("_expiries", "_requests", "_serials", "_tenants", "_turn", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        # In the order in which they came.
        self._requests: dict[Waiting, None] = {}
        # In the order of their turns.
        self._tenants: OrderedDict[str, Tenant] = OrderedDict()
        self._turn: Tenant | None = None
        """Who has been given the quantum of this turn."""
        self._expiries = _Heap(self._requests.__contains__)
        self._serials = count()

    def __len__(self) -> int:
        return len(self._requests)

    def of(self, tenant: str) -> Tenant | None:
        return self._tenants.get(tenant)

    def newest_first(self) -> Iterator[Waiting]:
        return reversed(self._requests)

    def tokens_ahead(self, waiting: Waiting) -> int:
        """What is served before a request that comes now: its tenant's, and as much of each other's."""
        mine = self._tenants.get(waiting.tenant)
        own = waiting.tokens + (0 if mine is None else mine.tokens)
        others = (min(own, each.tokens) for each in self._tenants.values() if each is not mine)
        return own - waiting.tokens + sum(others)

    def add(self, waiting: Waiting) -> None:
        serial = next(self._serials)
        self._requests[waiting] = None
        self.tokens += waiting.tokens
        self._expiries.push(waiting, serial, len(self._requests))
        tenant = self._tenants.get(waiting.tenant)
        if tenant is None:
            tenant = self._tenants[waiting.tenant] = Tenant(waiting.tenant, self._requests.__contains__)
        tenant.add(waiting, serial)

    def remove(self, waiting: Waiting) -> bool:
        """False: it is not there."""
        if waiting not in self._requests:
            return False
        del self._requests[waiting]
        self.tokens -= waiting.tokens
        if not self._requests:
            self._expiries.clear()
        tenant = self._tenants[waiting.tenant]
        tenant.removed(waiting)
        if not len(tenant):
            # What it had saved up is lost, or those who come and go would save up for ever.
            del self._tenants[tenant.name]
        return True

    def take(self, fits: Callable[[Hashable], bool] | None) -> Waiting | None:
        """Whose turn it is, of those for whom there is room."""
        without_room = 0
        lacking: dict[Tenant, int] = {}
        while without_room < len(self._tenants):
            tenant = next(iter(self._tenants.values()))
            if tenant in lacking:
                _skip_rounds(lacking)
                lacking.clear()
            head = tenant.head(fits)
            if head is None:
                without_room += 1
                self._tenants.move_to_end(tenant.name)
                continue
            without_room = 0
            if self._turn is not tenant:
                self._turn = tenant
                tenant.deficit += QUANTUM
            if head.tokens <= tenant.deficit:
                # No more is kept than a turn's: it may have been saved up for a request that has left.
                tenant.deficit = min(tenant.deficit - head.tokens, QUANTUM)
                self.remove(head)
                return head
            lacking[tenant] = head.tokens - tenant.deficit
            self._turn = None
            self._tenants.move_to_end(tenant.name)
        return None

    def expired(self, now: float) -> list[Waiting]:
        """Those whose time is over; they are out."""
        late = []
        while (first := self._expiries.first()) is not None and first[0] <= now:
            late.append(first[2])
            self.remove(first[2])
        return late


def _skip_rounds(lacking: dict[Tenant, int]) -> None:
    """Give all at once what they would get in the rounds in which nobody has enough.

    `lacking` are the tokens that each of a round is short of. A client says how large its request is, so the
    rounds are not gone through one by one.
    """
    rounds = -(-min(lacking.values()) // QUANTUM) - 1
    for tenant in lacking:
        tenant.deficit += rounds * QUANTUM
