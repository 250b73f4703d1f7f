"""What the others have in flight: by member, by request, and summed up by replica. Decides only; no I/O.

Every member names all its open requests several times a second, so whatever was lost, late or told twice is
put right by the next such list; who falls silent is gone, and what it had in flight is taken back.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from policies.routing.events import Dispatched, Done, Event, FirstToken, Forgotten, Prompt
from router.control.cache_news import NewsReader
from router.control.messages import (
    SERIAL_BITS,
    Answered,
    Batch,
    Began,
    Bye,
    Emptied,
    Ended,
    Flushed,
    Lacks,
    Member,
    Open,
    Place,
    Stores,
    WireAnswer,
    WirePrompt,
    outcome_from,
)

Shared = Dispatched | FirstToken | Done | Forgotten
"""The events of requests and restarts, which all members tell each other."""


class Told(NamedTuple):
    """An event of another member, and the version whose pool it concerns. Its times are of this clock."""

    model: str
    version: str
    event: Event


class Request(NamedTuple):
    """An open request: where it is, and its prompt, which its answer goes on from."""

    place: Place
    prompt: Prompt | None


class _Peer:
    """What is known of one member."""

    __slots__ = ("heard_at", "open")

    def __init__(self) -> None:
        self.heard_at = 0.0
        self.open: dict[int, Request] = {}


class Ledger:
    """The open requests of all other members. `changed` is told a replica's new count."""

    def __init__(self, changed: Callable[[Place, int], None]) -> None:
        self._changed = changed
        self._peers: dict[Member, _Peer] = {}
        self._counts: Counter[Place] = Counter()
        self._news = NewsReader()

    def count(self, place: Place) -> int:
        """Requests of one version that others have on a replica."""
        return self._counts[place]

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._peers)

    def in_flight(self, replica: str) -> int:
        """Requests of all versions that others have on the replica of this id."""
        return sum(count for place, count in self._counts.items() if place.replica == replica)

    def hear(self, batch: Batch, now: float, shift_s: float) -> Iterator[Told]:
        """Take in a batch, and tell its events in their order; it is taken in as far as this is iterated.

        `shift_s` leads from the sender's clock to that of `now`.
        """
        peer = self._peers.setdefault(batch.member, _Peer())
        peer.heard_at = now
        for entry in batch.entries:
            match entry:
                case Began():
                    yield from self._began(batch.member, peer, entry, shift_s)
                case Answered(serial, at) if serial in peer.open:
                    place = peer.open[serial].place
                    ticket = ticket_of(batch.member, serial)
                    yield _told(place, FirstToken(place.replica, ticket, at + shift_s))
                case Ended():
                    yield from self._ended(batch.member, peer, entry, shift_s)
                case Flushed(place, at):
                    yield _told(place, Forgotten(place.replica, at + shift_s))
                case Emptied() | Stores() | Lacks():
                    news = self._news.read(batch.member, entry, shift_s)
                    yield from (_told(entry.place, each) for each in news)
                case Open(serials):
                    yield from self._settle(batch.member, peer, serials, now)
                case Bye():
                    yield from self._forget(batch.member, now)

    def silent(self, before: float, now: float) -> Iterator[Told]:
        """Whoever was last heard before `before` is gone: tell that all it had in flight is over."""
        for member, peer in list(self._peers.items()):
            if peer.heard_at < before:
                yield from self._forget(member, now)

    def _began(self, member: Member, peer: _Peer, entry: Began, shift_s: float) -> Iterator[Told]:
        if entry.serial in peer.open:
            return
        prompt = None if entry.prompt is None else _prompt(entry.prompt)
        self._add(peer, entry.serial, Request(entry.place, prompt))
        ticket = ticket_of(member, entry.serial)
        at = entry.at + shift_s
        yield _told(entry.place, Dispatched(entry.place.replica, ticket, at, prompt, entry.streamed))

    def _ended(self, member: Member, peer: _Peer, entry: Ended, shift_s: float) -> Iterator[Told]:
        request = peer.open.get(entry.serial)
        if request is None:
            return
        self._remove(peer, entry.serial)
        outcome = None if entry.outcome is None else outcome_from(entry.outcome, shift_s)
        answer = None if entry.answer is None else _answer(request.prompt, entry.answer)
        ticket = ticket_of(member, entry.serial)
        yield _told(request.place, Done(request.place.replica, ticket, entry.at + shift_s, outcome, answer))

    def _settle(
        self, member: Member, peer: _Peer, serials: dict[Place, list[int]], now: float
    ) -> Iterator[Told]:
        """Exactly these are open. An end that was not told is one without an outcome."""
        listed = {serial: place for place, each in serials.items() for serial in each}
        for serial in peer.open.keys() - listed.keys():
            yield self._over(member, peer, serial, now)
        for serial in listed.keys() - peer.open.keys():
            self._add(peer, serial, Request(listed[serial], None))

    def _forget(self, member: Member, now: float) -> Iterator[Told]:
        peer = self._peers.pop(member, _Peer())
        for serial in list(peer.open):
            yield self._over(member, peer, serial, now)

    def _over(self, member: Member, peer: _Peer, serial: int, now: float) -> Told:
        place = self._remove(peer, serial)
        return _told(place, Done(place.replica, ticket_of(member, serial), now, None))

    def _add(self, peer: _Peer, serial: int, request: Request) -> None:
        peer.open[serial] = request
        self._counts[request.place] += 1
        self._changed(request.place, self._counts[request.place])

    def _remove(self, peer: _Peer, serial: int) -> Place:
        place = peer.open.pop(serial).place
        self._counts[place] -= 1
        count = self._counts[place]
        if not count:
            del self._counts[place]
        self._changed(place, count)
        return place


def ticket_of(member: Member, serial: int) -> int:
    """64 bits: worker, epoch, serial number, which begins anew when it is through."""
    return member.origin << SERIAL_BITS | serial_of(serial)


def serial_of(ticket: int) -> int:
    return ticket & ((1 << SERIAL_BITS) - 1)


def wire_prompt(prompt: Prompt) -> WirePrompt:
    return WirePrompt(prompt.blocks, *prompt[1:])


def wire_answer(prompt: Prompt | None, answer: Prompt) -> WireAnswer:
    """Without the hashes that went out with the prompt."""
    before: Sequence[int] = () if prompt is None else prompt.blocks
    alike = 0
    for one, other in zip(before, answer.blocks, strict=False):
        if one != other:
            break
        alike += 1
    return WireAnswer(alike, answer.blocks[alike:], *answer[1:])


def _answer(prompt: Prompt | None, wire: WireAnswer) -> Prompt | None:
    """None if the prompt's hashes, which it goes on from, were lost."""
    before = () if prompt is None else tuple(prompt.blocks[: wire.alike])
    if len(before) < wire.alike:
        return None
    return Prompt((*before, *wire.blocks), wire.tokens, wire.block_tokens, wire.exact)


def _prompt(wire: WirePrompt) -> Prompt:
    return Prompt(tuple(wire.blocks), wire.tokens, wire.block_tokens, wire.exact)


def _told(place: Place, event: Event) -> Told:
    return Told(place.model, place.version, event)
