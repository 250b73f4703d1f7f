"""Sharing: this member's events go to all others, and theirs come here.

A lost or late message costs accuracy only: what is in flight is repeated as a whole several times a second.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic

import msgspec

from policies.routing.events import CacheNews, Dispatched, Done, Event, FirstToken, Forgotten
from router.control.cache_news import NewsWriter
from router.control.channel import Channel
from router.control.ledger import Ledger, Request, Shared, Told, serial_of, wire_answer, wire_prompt
from router.control.messages import (
    Answered,
    Batch,
    Began,
    Bye,
    Codec,
    Ended,
    Entry,
    Flushed,
    Hello,
    Member,
    Open,
    Place,
    StatePart,
    Undecodable,
    WantState,
    wire_outcome,
)
from router.control.state import Snapshot, StateReader, StateSender, Version

log = logging.getLogger("turnout.control.sharing")

BEAT_S = 0.2
"""How often a member says what it has in flight, and that it is there."""
GONE_S = 0.8
"""Who was silent for so long is gone."""
JOINING_S = 2.0
"""So long after its start a member takes over what others have learned; later it knows better itself."""
MAX_BATCH_BYTES = 61_440

OnEvent = Callable[[str, str, Event], None]
OnCount = Callable[[Place, int], None]
OnHealth = Callable[[bool], None]


class Outbox:
    """One channel, and what is collected for it."""

    def __init__(self, channel: Channel, seal: Callable[[list[msgspec.Raw]], bytes]) -> None:
        self.channel = channel
        self._seal = seal
        self._entries: list[msgspec.Raw] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, entry: msgspec.Raw) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.channel.delay_s, self.flush)
        self._entries.append(entry)
        self._bytes += len(entry)
        if self._bytes > MAX_BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entries:
            entries, self._entries, self._bytes = self._entries, [], 0
            self.channel.send(self._seal(entries))


class Sharing:
    """One member. Used on one event loop, from `start` to `close`.

    `publish` takes the events of this process; what others publish comes to the callbacks.
    """

    def __init__(self, member: Member, channels: Sequence[Channel]) -> None:
        self.member = member
        self._codec = Codec()
        self._outboxes = [Outbox(channel, self._seal) for channel in channels]
        self._own: dict[int, Request] = {}
        self._news = NewsWriter()
        self._ledger = Ledger(self._count)
        self._on_event: list[OnEvent] = []
        self._on_count: list[OnCount] = []
        self._on_health: list[OnHealth] = []
        self._was_healthy = True
        self._offered: dict[Version, Snapshot] = {}
        self._giver = StateSender(self._offered, self._send_part)
        self._reader = StateReader(self._offered)
        self._asked_for_state = False
        self._joined_at = 0.0
        self._beat_at = 0.0
        self._beat: asyncio.TimerHandle | None = None

    # ---- for the parts of this process ----

    def publish(self, event: Shared, model: str, version: str) -> None:
        """Tell the others, within a few milliseconds. Costs 2 to 6 us, and hardly anything where nobody is.

        Who joins is told first what is open.
        """
        if self._ledger.members:
            self._put(self._entry(event, model, version))
        elif isinstance(event, Dispatched):
            self._own[serial_of(event.ticket)] = Request(Place(model, version, event.replica), event.prompt)
        elif isinstance(event, Done):
            self._own.pop(serial_of(event.ticket), None)

    def publish_news(self, news: CacheNews, place: Place) -> None:
        """Tell the other members of this router what a replica said of its cache.

        Other routers hear that for themselves, if at all: it is more than a shared Redis should carry.
        """
        near = [outbox for outbox in self._outboxes if not outbox.channel.far]
        for entry in self._news.entries(news, place):
            encoded = self._codec.entry(entry)
            for outbox in near:
                outbox.put(encoded)

    def on_event(self, callback: OnEvent) -> None:
        """`callback(model, version, event)` for every event of another member, its times on this clock.

        When one is gone, what it had in flight is `Done` without an outcome.
        """
        self._on_event.append(callback)

    def on_count(self, callback: OnCount) -> None:
        """`callback(place, count)` whenever the others have more or fewer requests at a replica."""
        self._on_count.append(callback)

    def on_health(self, callback: OnHealth) -> None:
        """`callback(healthy)` when that changes."""
        self._on_health.append(callback)

    def offer(self, snapshots: Mapping[Version, Snapshot]) -> None:
        """Exactly these members that join are given, and they are filled when this one joins."""
        self._offered.clear()
        self._offered.update(snapshots)

    def in_flight_elsewhere(self, replica_id: str) -> int:
        """Of all versions that this replica serves."""
        return self._ledger.in_flight(replica_id)

    def count_elsewhere(self, place: Place) -> int:
        """Of one version."""
        return self._ledger.count(place)

    @property
    def peers(self) -> int:
        """Other members that were heard within the last second."""
        return len(self._ledger.members)

    @property
    def healthy(self) -> bool:
        """Every channel works. Where one does not, this router is alone: others are not heard."""
        return all(outbox.channel.healthy for outbox in self._outboxes)

    @property
    def dropped(self) -> int:
        """Messages that could not be sent."""
        return sum(outbox.channel.dropped for outbox in self._outboxes)

    async def start(self) -> None:
        """Join. Raises `OSError` if this host's folder cannot be used."""
        for outbox in self._outboxes:
            await outbox.channel.start(partial(self._received, far=outbox.channel.far))
        self._joined_at = monotonic()
        self._put(Hello())
        self._flush()
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat)

    async def close(self) -> None:
        """Leave: the others take back at once what this member had in flight."""
        if self._beat is not None:
            self._beat.cancel()
        await self._giver.close()
        self._put(Bye())
        self._flush()
        for outbox in self._outboxes:
            await outbox.channel.close()

    # ---- out ----

    def _entry(self, event: Shared, model: str, version: str) -> Entry:
        match event:
            case Dispatched(replica, ticket, at, prompt, streamed):
                place = Place(model, version, replica)
                self._own[serial_of(ticket)] = Request(place, prompt)
                sent = None if prompt is None else wire_prompt(prompt)
                return Began(place, serial_of(ticket), at, streamed, sent)
            case FirstToken(_, ticket, at):
                return Answered(serial_of(ticket), at)
            case Done(_, ticket, at, outcome, answer):
                request = self._own.pop(serial_of(ticket), None)
                prompt = None if request is None else request.prompt
                rest = None if answer is None else wire_answer(prompt, answer)
                return Ended(serial_of(ticket), at, None if outcome is None else wire_outcome(outcome), rest)
            case Forgotten(replica, at):
                return Flushed(Place(model, version, replica), at)

    def _put(self, entry: Entry) -> None:
        encoded = self._codec.entry(entry)
        for outbox in self._outboxes:
            outbox.put(encoded)

    def _flush(self) -> None:
        for outbox in self._outboxes:
            outbox.flush()

    def _seal(self, entries: list[msgspec.Raw]) -> bytes:
        return self._codec.batch(self.member, monotonic(), entries)

    def _send_part(self, part: StatePart, to: Member) -> None:
        self._send_to(to, part)

    def _send_to(self, to: Member, entry: Entry) -> None:
        message = self._seal([self._codec.entry(entry)])
        far = to.router != self.member.router
        for outbox in self._outboxes:
            if outbox.channel.far == far:
                outbox.channel.send(message, to)

    def _say_what_is_open(self) -> None:
        serials: dict[Place, list[int]] = {}
        for serial, request in self._own.items():
            serials.setdefault(request.place, []).append(serial)
        self._put(Open(serials))
        self._flush()

    def _on_beat(self) -> None:
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat)
        self._say_what_is_open()
        now = monotonic()
        # After a pause of this very process its peers only seem silent: what they said is yet to be read.
        if now - self._beat_at < GONE_S:
            self._tell(self._ledger.silent(now - GONE_S, now))
        self._beat_at = now
        healthy = self.healthy
        if healthy != self._was_healthy:
            self._was_healthy = healthy
            for callback in self._on_health:
                callback(healthy)

    # ---- in ----

    def _received(self, message: bytes, *, far: bool) -> None:
        """Whatever comes, it must not end the reading: the messages are other processes'."""
        try:
            batch = self._codec.read(message)
            if (batch.member.router != self.member.router) == far and batch.member != self.member:
                self._take(batch)
        except (Undecodable, ValueError) as error:
            log.warning("a message of another worker or router cannot be read: %s", error)

    def _take(self, batch: Batch) -> None:
        now = monotonic()
        # On one host all processes read the same monotonic clock.
        near = batch.member.router == self.member.router
        self._tell(self._ledger.hear(batch, now, 0.0 if near else now - batch.sent_at))
        for entry in batch.entries:
            match entry:
                case Hello():
                    self._say_what_is_open()
                case Open() if self._lacks_state(now):
                    self._asked_for_state = True
                    self._send_to(batch.member, WantState())
                case WantState():
                    self._giver.give(batch.member)
                case StatePart():
                    self._reader.take(entry)

    def _lacks_state(self, now: float) -> bool:
        """It has just joined, and has asked nobody: the first that answers its greeting is asked."""
        return bool(self._offered) and not self._asked_for_state and now - self._joined_at < JOINING_S

    def _tell(self, told: Iterable[Told]) -> None:
        for model, version, event in told:
            for callback in self._on_event:
                callback(model, version, event)

    def _count(self, place: Place, count: int) -> None:
        for callback in self._on_count:
            callback(place, count)
