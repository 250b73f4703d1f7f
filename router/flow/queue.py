"""Waiting for room while a pool is saturated: `policies.limits.fair_queue` decides who is next.

Below saturation nobody comes here. Who waits is resumed in the very callback that made room, and is handed
the lease itself: between the permission and the lease nothing else can happen, so one slot is given once.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

import msgspec

from policies.limits.fair_queue import FairQueue, QueueBounds, Refusal
from policies.limits.tenant_turns import Waiting
from router.api.errors import Overloaded, QueueFull, TurnoutError
from router.api.request import InferenceRequest
from router.eager import Signal
from router.fleet.leases import Lease
from router.fleet.pools import Pool
from router.fleet.replicas import Replica
from router.flow.call import Call

LOOK_S: Final = 0.1
"""How often a queue looks for what no callback tells: deadlines, scrapes grown old, an operator's wishes."""
_LEAST_RETRY_S: Final = 1.0

Choose = Callable[[], Lease | None]
"""Choose and lease, in one step; None: nobody has room."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """`max_wait_s`: how long anybody may wait; a request's own deadline may be sooner."""

    bounds: QueueBounds
    max_wait_s: float


class _Ticket:
    """One request's wait. When `signal` fires it has a lease or an error, or its client has left."""

    __slots__ = ("choose", "error", "lease", "signal", "waiting")

    def __init__(self, waiting: Waiting, choose: Choose) -> None:
        self.waiting = waiting
        self.choose = choose
        self.signal = Signal()
        self.lease: Lease | None = None
        self.error: Exception | None = None

    def admit(self) -> None:
        try:
            self.lease = self.choose()
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it is raised in this request, not in the one that made room.
            self.error = error
        self.signal.fire()

    def refuse(self, error: TurnoutError) -> None:
        self.error = error
        self.signal.fire()

    def give_up(self) -> None:
        """Nobody is there any more to use the lease."""
        if self.lease is not None:
            self.lease.close(None, monotonic())


class PoolQueue:
    """The queue of one pool. While anybody waits, the pool's replicas tell it of room."""

    def __init__(self, pool: Pool, limits: QueueLimits) -> None:
        self._pool = pool
        self._limits = limits
        self._fair = FairQueue(limits.bounds)
        self._tickets: dict[Waiting, _Ticket] = {}
        self._kinds: dict[Hashable, InferenceRequest] = {}
        """For each kind a request like it, without its contents."""
        self._heard: Sequence[Replica] = ()
        """Those that tell of room."""
        self._serving = False
        self._timer: asyncio.TimerHandle | None = None

    def bound(self, limits: QueueLimits) -> None:
        """For whom comes from now on."""
        self._limits = limits
        self._fair.bound(limits.bounds)

    async def enter(self, call: Call, choose: Choose) -> Lease | None:
        """Wait for a lease; None: the client has left meanwhile.

        Raises `QueueFull` if there is no place, `Overloaded` if its turn would not come in time, and what
        `Pool.lease` raises if waiting has become vain.
        """
        began = monotonic()
        ticket = self._put(call, choose, began)
        call.exchange.on_disconnect = partial(self._left, ticket)
        try:
            self.serve()
            await ticket.signal
        except BaseException:
            # Cancelled, or a defect: its turn must not come.
            self._left(ticket)
            ticket.give_up()
            raise
        finally:
            call.exchange.on_disconnect = None
            call.queue_wait_s = monotonic() - began
            call.waited_s += call.queue_wait_s
        if call.exchange.disconnected:
            ticket.give_up()
            return None
        if ticket.error is not None:
            raise ticket.error
        return ticket.lease

    def serve(self) -> None:
        """Give whatever room there is to those whose turn it is."""
        if self._serving:
            # Who was just resumed has made room, or come to wait: the loop below goes on to it.
            return
        self._serving = True
        try:
            while (ticket := self._next()) is not None:
                ticket.admit()
        finally:
            self._serving = False
            self._count()

    def refuse_all(self, error: TurnoutError) -> None:
        for ticket in list(self._tickets.values()):
            self._refuse(ticket.waiting, error)
        self._count()

    # ---- inside ----

    def _put(self, call: Call, choose: Choose, now: float) -> _Ticket:
        request, facts = call.request, call.facts
        assert request is not None
        assert facts is not None
        waiting = Waiting(
            tenant=call.caller.tenant,
            priority=call.priority,
            tokens=max(1, self._pool.tokens(request, facts)),
            bytes=len(request.body),
            expires_at=min(call.deadline, now + self._limits.max_wait_s),
            kind=self._kind(request),
        )
        displaced = self._fair.put(waiting, now)
        if isinstance(displaced, Refusal):
            raise _refused(displaced, waiting, request.model, now)
        ticket = self._tickets[waiting] = _Ticket(waiting, choose)
        for victim in displaced:
            retry_after_s = _retry_after_s(self._fair.wait_s(victim, now))
            message = f"the queue for {request.model} is full, and requests of a higher priority came"
            self._refuse(victim, QueueFull(message, retry_after_s=retry_after_s))
        self._count()
        return ticket

    def _kind(self, request: InferenceRequest) -> Hashable:
        fallback = request.fallback
        kind = request.needs, None if fallback is None else fallback.needs
        if kind not in self._kinds:
            self._kinds[kind] = _without_contents(request)
        return kind

    def _next(self) -> _Ticket | None:
        now = monotonic()
        for waiting in self._fair.expired(now):
            message = f"no replica had room within {self._limits.max_wait_s:g} s, or within the deadline"
            retry_after_s = _retry_after_s(self._fair.wait_s(waiting, now))
            self._refuse(waiting, Overloaded(message, retry_after_s=retry_after_s))
        taken = self._fair.take(now, self._fits)
        return None if taken is None else self._tickets.pop(taken)

    def _fits(self, kind: Hashable) -> bool:
        try:
            return self._pool.has_room(self._kinds[kind])
        except TurnoutError:
            # Nobody who could serve it is up any more: it is told so when it asks for its lease.
            return True

    def _refuse(self, waiting: Waiting, error: TurnoutError) -> None:
        self._fair.cancel(waiting, monotonic())
        self._tickets.pop(waiting).refuse(error)

    def _left(self, ticket: _Ticket) -> None:
        """Its client is gone, or its task is cancelled."""
        if self._fair.cancel(ticket.waiting, monotonic()):
            del self._tickets[ticket.waiting]
            self._count()
            ticket.signal.fire()

    def _count(self) -> None:
        """Have replicas tell of room, and the clock run, as long as anybody waits."""
        waits, waited = len(self._tickets), self._timer is not None
        self._pool.queued = waits
        if bool(waits) == waited:
            return
        self._hear(self._pool.replicas if waits else ())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        else:
            self._timer.cancel()
            self._timer = None
            self._kinds.clear()

    def _hear(self, replicas: Sequence[Replica]) -> None:
        for replica in self._heard:
            replica.room_made = None
        for replica in replicas:
            replica.room_made = self.serve
        self._heard = replicas

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        now = monotonic()
        if self._heard is not self._pool.replicas:
            self._hear(self._pool.replicas)
        for replica in self._pool.replicas:
            replica.look(now)
        self.serve()


class Queues:
    """The queue of every pool in which somebody had to wait."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._queues: dict[Pool, PoolQueue] = {}

    async def enter(self, pool: Pool, call: Call, choose: Choose) -> Lease | None:
        """See `PoolQueue.enter`."""
        queue = self._queues.get(pool)
        if queue is None:
            queue = self._queues[pool] = PoolQueue(pool, self._limits)
        return await queue.enter(call, choose)

    def bound(self, limits: QueueLimits) -> None:
        """For whom comes from now on; nobody who waits is sent away."""
        self._limits = limits
        for queue in self._queues.values():
            queue.bound(limits)

    def keep(self, pools: Collection[Pool]) -> None:
        """Forget the queues of pools that are gone, once nobody waits there."""
        for pool in [pool for pool in self._queues if not pool.queued and pool not in pools]:
            del self._queues[pool]

    def refuse_all(self, error: TurnoutError) -> None:
        """The router ends: nobody's turn will come."""
        for queue in self._queues.values():
            queue.refuse_all(error)


def _without_contents(request: InferenceRequest) -> InferenceRequest:
    fallback = None if request.fallback is None else _without_contents(request.fallback)
    return msgspec.structs.replace(request, body=b"", members={}, fallback=fallback)


def _refused(refusal: Refusal, waiting: Waiting, model: str, now: float) -> TurnoutError:
    wait_s = refusal.wait_s
    match refusal.reason:
        case "late":
            may_s = max(0.0, waiting.expires_at - now)
            over_s = None if wait_s is None else wait_s - may_s
            message = (
                f"every replica of {model} is busy, and the wait is longer than the {may_s:.1f} s it may be"
            )
            return Overloaded(message, retry_after_s=_retry_after_s(over_s))
        case "tenant":
            message = f"as many requests for {model} wait as one tenant may have in the queue"
        case "full":
            message = f"every replica of {model} is busy, and the queue is full"
    return QueueFull(message, retry_after_s=_retry_after_s(wait_s))


def _retry_after_s(wait_s: float | None) -> float:
    return max(_LEAST_RETRY_S, wait_s or 0.0)
