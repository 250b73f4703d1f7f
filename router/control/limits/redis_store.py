"""Buckets in Redis: the same for every process of the fleet that uses the same database.

A request waits for one round trip, never longer than the timeout. Where Redis is not there, `on_failure`
decides; what then was used is told to Redis when it is back.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from policies.limits.ask import Ask, Verdict
from router.config.process import RedisConfig
from router.control.limits.away import Away
from router.control.limits.cluster import Address, Cluster
from router.control.limits.denials import Denials
from router.control.limits.failures import Failure, Kind
from router.control.limits.journal import Journal, cancellation, forced, settlement
from router.control.limits.leases import RENEW_S, Leases
from router.control.limits.local import monotonic_us
from router.control.limits.members import Members
from router.control.limits.node import Node
from router.control.limits.parts import Part, combine, parts_of
from router.control.limits.redis_link import Call, Endpoint
from router.control.limits.reservations import CountedReservation, FreeReservation, PartedReservation, free
from router.control.limits.scripts import Mode, Scripts, pack
from router.control.limits.share import LastSeen
from router.control.limits.store import Reservation, StoreState

ARRIVE_S = 1.0
LAST_WORDS_S = 1.0


class RedisStore:
    """One process's way to the limits of its fleet. Used on one event loop, from `start` to `close`."""

    def __init__(
        self,
        config: RedisConfig,
        *,
        total_s: float = 900.0,
        processes: int = 1,
        takes_part: bool = True,
        sequenced: bool = False,
    ) -> None:
        """`total_s`: how long a request can last. `processes`: how many there are until Redis says it.

        `takes_part`: it admits requests, so limits are divided for it too while Redis is away.
        `sequenced`: every decision gets the number at which Redis made it, for those who check them; so none
        is remembered.
        Raises `ValueError` for a URL that is none.
        """
        self._url = config.url
        self._timeout_s = config.timeout_ms / 1000
        self._processes = processes
        self._takes_part = takes_part
        self._denials = None if sequenced else Denials()
        self._patient = config.on_failure == "deny"
        self._scripts = Scripts(total_s, sequenced=sequenced)
        self._leases = Leases()
        self._last_seen = LastSeen()
        self._away = Away(config.on_failure, self._leases, self._last_seen, self._settle)
        self._journal = Journal(self._scripts, self._node_of, self._moved, self._end_shares)
        self._node = self._new_node(None)
        self._cluster: Cluster | None = None
        self._resets = 0
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Redis need not be there, but if it is it is used from the first request on."""
        self._node.start()
        self._renewing = asyncio.create_task(self._keep_renewing())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARRIVE_S):
                await self._node.arrived.wait()
                for node in self._nodes:
                    await node.arrived.wait()

    async def close(self) -> None:
        self._journal.write()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while len(self._journal) and any(node.here for node in self._nodes):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        self._journal.stop()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if self._cluster is not None:
            await self._cluster.close()
        await self._node.close()

    def admit(self, ask: Ask) -> Coroutine[Any, Any, Reservation]:
        if self._cluster is None:
            return self._admit(self._node, "", ask)
        return self._admit_parts(ask)

    async def look(self, ask: Ask) -> Verdict:
        if self._cluster is None:
            return await self._look(self._node, "", ask)
        parts = parts_of(ask)
        return combine(ask, parts, [await self._look_at(part) for part in parts])

    @property
    def state(self) -> StoreState:
        nodes = self._nodes
        healthy = all(node.here for node in nodes)
        shown = self._url.masked()
        return StoreState(
            place=shown if healthy else f"{self._away.place}, as {shown} is away",
            healthy=healthy,
            shares=max(node.members.shares for node in nodes),
            unsettled=len(self._journal),
            unknown=self._journal.unknown,
            resets=sum(node.members.resets for node in nodes),
            lost=sum(node.lost for node in nodes),
            dropped=self._journal.dropped,
        )

    # ---- one node ----

    async def _admit(self, node: Node, home: str, ask: Ask) -> Reservation:
        """`home`: whose share counts while `node` is away."""
        if not (ask.budgets or ask.slots):
            return FreeReservation(ask)
        if not node.ready:
            return self._admit_without(node, home, ask)
        denied = None if self._denials is None else self._denials.recall(monotonic_us(), ask)
        if denied is not None:
            return CountedReservation(ask, denied, (0, 0), self._settle)
        try:
            call = node.call(self._scripts.admission(ask, "admit"))
            await call
            reply = call.reply
            if isinstance(reply, Failure):
                reply = await self._call_again(node, ask, "admit", reply)
        except asyncio.CancelledError:
            self._put_back(ask)
            raise
        if isinstance(reply, Failure):
            self._put_back(ask)
            return self._admit_without(node, home, ask)
        node.failures = 0
        if len(reply) == 1:
            # Settled before it was made: the one who asked has left.
            return FreeReservation(ask)
        verdict = _verdict(ask, reply)
        self._last_seen.note(monotonic_us(), ask, verdict)
        if verdict.admitted:
            self._leases.add(ask)
        elif self._denials is not None:
            self._denials.note(monotonic_us(), ask, verdict)
        return CountedReservation(ask, verdict, (reply[2], reply[3]), self._settle)

    async def _look(self, node: Node, home: str, ask: Ask) -> Verdict:
        if not (ask.budgets or ask.slots):
            return free(ask)
        if node.ready:
            call = node.call(self._scripts.admission(ask, "look"))
            await call
            reply = call.reply
            if isinstance(reply, Failure):
                reply = await self._call_again(node, ask, "look", reply)
            if not isinstance(reply, Failure):
                return _verdict(ask, reply)
        return self._away.look(node, home, ask)

    async def _call_again(self, node: Node, ask: Ask, mode: Mode, failure: Failure) -> Any:
        """After a failure that may be none at another place, or with the script's text."""
        place: Node | None = node if failure.kind is Kind.UNKNOWN_SCRIPT else None
        if self._cluster is not None and failure.kind in (Kind.MOVED, Kind.ASK):
            place = self._cluster.node_at(failure, node)
        elif place is None:
            node.failed(failure)
        if place is None or not place.ready:
            return failure
        if failure.kind is Kind.ASK:
            place.post(pack(("ASKING",)), Call())
        call = place.call(self._scripts.admission(ask, mode, whole=True))
        await call
        if isinstance(call.reply, Failure):
            place.failed(call.reply)
        return call.reply

    def _admit_without(self, node: Node, home: str, ask: Ask) -> Reservation:
        self._journal.write_soon()
        return self._away.admit(node, home, ask)

    # ---- several nodes ----

    async def _admit_parts(self, ask: Ask) -> Reservation:
        """One after the other: what the first have given is put back where a later one refuses."""
        parts = parts_of(ask)
        reservations: list[Reservation] = []
        verdicts: list[Verdict] = []
        try:
            for part in parts:
                reservation = await self._admit(self._node_of(part.tag), part.tag, part.ask)
                verdicts.append(reservation.verdict)
                if not reservation.verdict.admitted:
                    break
                reservations.append(reservation)
        finally:
            # Also where nothing may pass uncounted, and when the one who asked has left.
            if len(reservations) < len(parts):
                for part, reservation in zip(parts, reservations, strict=False):
                    reservation.settle(part.nothing_used)
        verdicts += [await self._look_at(part) for part in parts[len(verdicts) :]]
        return PartedReservation(combine(ask, parts, verdicts), parts, reservations)

    def _look_at(self, part: Part) -> Coroutine[Any, Any, Verdict]:
        return self._look(self._node_of(part.tag), part.tag, part.ask)

    # ---- what nobody waits for ----

    def _settle(self, ask: Ask, shifts_us: Sequence[int]) -> None:
        self._leases.remove(ask)
        if self._cluster is None:
            self._journal.put(settlement(ask, shifts_us))
            return
        for part in parts_of(ask):
            self._journal.put(settlement(part.ask, part.shifts(shifts_us)))

    def _put_back(self, ask: Ask) -> None:
        """Nobody knows whether it was taken. An ask to one node, so it is one part."""
        self._journal.put(cancellation(ask))

    def _end_shares(self) -> None:
        """Tell Redis of what was used without it, where it is back."""
        for ask in self._away.end(lambda home: self._node_of(home).steady):
            parts = [ask] if self._cluster is None else [part.ask for part in parts_of(ask)]
            for part in parts:
                self._journal.put(forced(part))
        if len(self._away) and any(node.here for node in self._nodes):
            self._journal.write_soon()

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            self._renew()

    def _renew(self) -> None:
        for tag, command in self._leases.renewals(self._scripts):
            node = self._node_of(tag)
            if node.here:
                node.post(command, Call())

    # ---- the servers ----

    @property
    def _nodes(self) -> Sequence[Node]:
        return [self._node] if self._cluster is None else self._cluster.nodes

    def _node_of(self, tag: str) -> Node:
        return self._node if self._cluster is None else self._cluster.node_of(tag)

    def _new_node(self, address: Address | None) -> Node:
        return Node(
            Endpoint(self._url, address),
            self._scripts,
            self._timeout_s,
            Members(self._scripts, self._url.masked(), self._processes, takes_part=self._takes_part),
            returned=self._returned,
            learned=self._learned,
            patient=self._patient,
        )

    def _learned(self, node: Node, slots: Sequence[Any], own_id: bytes) -> None:
        if self._cluster is None:
            self._cluster = Cluster(self._node, self._new_node)
            self._cluster.start()
        self._cluster.learn(node, slots, own_id)

    def _moved(self, node: Node, failure: Failure) -> None:
        if self._cluster is None:
            node.failed(failure)
        else:
            self._cluster.look_again()

    def _returned(self, _: Node) -> None:
        """Before anybody asks: what Redis has missed."""
        resets = sum(each.members.resets for each in self._nodes)
        if resets != self._resets:
            self._resets = resets
            self._last_seen.forget()
        self._journal.write()
        self._renew()


def _verdict(ask: Ask, reply: list[int]) -> Verdict:
    slots = 4 + len(ask.budgets)
    return Verdict(reply[0], reply[4:slots], reply[slots:], reply[1])
