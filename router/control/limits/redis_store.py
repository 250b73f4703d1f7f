"""Buckets in Redis: the same for every process of the fleet that uses the same database.

A request waits for one round trip, never longer than the timeout. Where Redis is not there, `on_failure`
decides; what then was used is told to Redis when it is back.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from secrets import token_hex
from typing import Any

from policies.limits.ask import Ask, Verdict
from router.api.errors import Overloaded
from router.config.process import RedisConfig
from router.control.limits.failures import Failure, Kind
from router.control.limits.journal import Journal, cancellation, forced, settlement
from router.control.limits.leases import RENEW_S, Leases
from router.control.limits.local import monotonic_us
from router.control.limits.members import Members
from router.control.limits.node import Node
from router.control.limits.redis_link import Call, Endpoint
from router.control.limits.reservations import (
    CountedReservation,
    FreeReservation,
    SharedReservation,
    adopted,
    free,
)
from router.control.limits.scripts import Mode, Scripts
from router.control.limits.share import Recent, Share
from router.control.limits.store import Reservation, StoreState

ARRIVE_S = 1.0
LAST_WORDS_S = 1.0
RETRY_S = 1.0
BUDGETS_PER_CALL = 50


class RedisStore:
    """One process's way to the limits of its fleet. Used on one event loop, from `start` to `close`."""

    def __init__(
        self, config: RedisConfig, *, total_s: float = 900.0, processes: int = 1, sequenced: bool = False
    ) -> None:
        """`total_s`: how long a request can last. `processes`: how many there are until Redis says it.

        `sequenced`: every decision gets the number at which Redis made it, for those who check them.
        """
        self._on_failure = config.on_failure
        self._scripts = Scripts(total_s, sequenced=sequenced)
        self._leases = Leases()
        self._recent = Recent()
        self._shares: dict[str, Share] = {}
        self._journal = Journal(self._scripts, self._node_of, self._moved)
        self._journal.before_writing = self._end_shares
        self._members = Members(self._scripts, config.url.masked(), processes)
        self._shown = config.url.masked()
        self._timeout_s = config.timeout_ms / 1000
        self._node = Node(Endpoint(config.url), self._scripts, self._timeout_s, self._members, self._returned)
        self._resets = 0
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Redis need not be there, but if it is it is used from the first request on."""
        self._node.start()
        self._renewing = asyncio.create_task(self._keep_renewing())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARRIVE_S):
                await self._node.arrived.wait()

    async def close(self) -> None:
        self._journal.write()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while self._node.here and len(self._journal):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        self._journal.stop()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._node.close()

    def admit(self, ask: Ask) -> Coroutine[Any, Any, Reservation]:
        return self._admit(self._node, "", ask)

    async def look(self, ask: Ask) -> Verdict:
        if not (ask.budgets or ask.slots):
            return free(ask)
        node = self._node
        reply: Any = None
        if node.ready:
            call = node.call(self._scripts.admission(ask, "look"))
            await call
            reply = call.reply
            if isinstance(reply, Failure):
                reply = await self._call_again(node, ask, "look", reply)
        if isinstance(reply, list):
            return _verdict(ask, reply)
        return self._look_without(node, "", ask)

    @property
    def state(self) -> StoreState:
        return StoreState(
            place=self._place(),
            healthy=self._node.here,
            shares=self._members.shares,
            unsettled=len(self._journal),
            unknown=self._journal.unknown,
            resets=self._members.resets,
            lost=self._node.lost,
            dropped=self._journal.dropped,
        )

    # ---- in Redis ----

    async def _admit(self, node: Node, home: str, ask: Ask) -> Reservation:
        """`home`: whose share counts while `node` is away."""
        if not (ask.budgets or ask.slots):
            return FreeReservation(ask)
        if not node.ready:
            return self._admit_without(node, home, ask)
        try:
            call = node.call(self._scripts.admission(ask, "admit"))
            await call
            reply = call.reply
            if isinstance(reply, Failure):
                reply = await self._call_again(node, ask, "admit", reply)
        except asyncio.CancelledError:
            self._journal.put(cancellation(ask))
            raise
        if isinstance(reply, Failure):
            self._journal.put(cancellation(ask))
            return self._admit_without(node, home, ask)
        node.failures = 0
        if len(reply) == 1:
            # Settled before it was made: the one who asked has left.
            return FreeReservation(ask)
        verdict = _verdict(ask, reply)
        self._recent.note(monotonic_us(), ask, verdict)
        if verdict.admitted:
            self._leases.add(ask)
        return CountedReservation(ask, verdict, (reply[2], reply[3]), self._settle)

    async def _call_again(self, node: Node, ask: Ask, mode: Mode, failure: Failure) -> Any:
        """After a failure that may be one of this call alone."""
        reply: Any = failure
        if failure.kind is Kind.UNKNOWN_SCRIPT:
            call = node.call(self._scripts.admission(ask, mode, whole=True))
            await call
            reply = call.reply
        if isinstance(reply, Failure):
            node.failed(reply)
        return reply

    def _settle(self, ask: Ask, shifts_us: Sequence[int]) -> None:
        self._leases.remove(ask)
        self._journal.put(settlement(ask, shifts_us))

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            self._renew()

    def _renew(self) -> None:
        for tag, command in self._leases.renewals(self._scripts):
            node = self._node_of(tag)
            if node.here:
                node.post(command, Call())

    # ---- without Redis ----

    def _admit_without(self, node: Node, home: str, ask: Ask) -> Reservation:
        if self._on_failure == "deny":
            raise _uncounted()
        if self._on_failure == "allow":
            return FreeReservation(ask)
        share = self._shares.get(home)
        if share is None:
            share = self._shares[home] = self._new_share(node)
        self._journal.write_soon()
        return SharedReservation(ask, share.admit(ask, monotonic_us()), share, self._settle, monotonic_us)

    def _look_without(self, node: Node, home: str, ask: Ask) -> Verdict:
        if self._on_failure == "deny":
            raise _uncounted()
        if self._on_failure == "allow":
            return free(ask)
        share = self._shares.get(home) or self._new_share(node)
        return share.look(ask, monotonic_us())

    def _new_share(self, node: Node) -> Share:
        return Share(node.members.shares, self._recent.tats_us(monotonic_us()), self._leases.held)

    def _end_shares(self) -> None:
        """Tell Redis of what was used without it, where it is back."""
        for home, share in list(self._shares.items()):
            node = self._node_of(home)
            if node.steady:
                del self._shares[home]
                self._tell(share)
            elif node.here:
                self._journal.write_soon()

    def _tell(self, share: Share) -> None:
        now_us = monotonic_us()
        self._recent.note(now_us, *share.backlogs(now_us))
        used, still_open = share.end(now_us)
        for start in range(0, len(used), BUDGETS_PER_CALL):
            self._journal.put(forced(Ask(f"used-{token_hex(8)}", used[start : start + BUDGETS_PER_CALL])))
        for ask in still_open:
            known = adopted(ask)
            self._leases.add(known)
            free_of_charge = [budget._replace(cost_us=0) for budget in known.budgets]
            self._journal.put(forced(Ask(known.id, free_of_charge, known.slots)))

    # ---- the server ----

    def _node_of(self, _tag: str) -> Node:
        return self._node

    def _moved(self, failure: Failure) -> None:
        self._node.failed(failure)

    def _returned(self, node: Node) -> None:
        """Before anybody asks: what Redis has missed."""
        if node.members.resets != self._resets:
            self._resets = node.members.resets
            self._recent.forget()
        self._journal.write()
        self._renew()

    def _place(self) -> str:
        if self._node.here:
            return self._shown
        words = {
            "local_share": "this process, for its share",
            "deny": "nowhere: nothing is let in",
            "allow": "nowhere: everything is let in",
        }
        return f"{words[self._on_failure]}, as {self._shown} is away"


def _verdict(ask: Ask, reply: list[int]) -> Verdict:
    slots = 4 + len(ask.budgets)
    return Verdict(reply[0], reply[4:slots], reply[slots:], reply[1])


def _uncounted() -> Overloaded:
    return Overloaded("limits cannot be counted at the moment", retry_after_s=RETRY_S)
