"""Members of one router over real Unix datagrams: events, counts, crashes, losses, joining."""

import asyncio
from pathlib import Path
from random import Random

from policies.routing.events import (
    BlocksRemoved,
    BlocksStored,
    CacheLost,
    Dispatched,
    Done,
    Event,
    FirstToken,
    Forgotten,
    Prompt,
)
from router.control.channel import Received
from router.control.datagrams import DatagramChannel
from router.control.messages import Began, Codec, Emptied, Lacks, Member, Stores
from router.control.sharing import Outbox, Sharing
from tests.support.loops import run_strictly
from tests.support.scripted_server import until
from tests.support.sharing import OUTCOME, Peer, cut, workers

PROMPT = Prompt(tuple(2**64 - 1 - number for number in range(500)), 64_000, 128.0)


def test_events_reach_all_others(tmp_path: Path) -> None:
    """In their order, with all hashes, and not their sender."""

    async def run() -> None:
        async with workers(tmp_path, 3) as (one, two, three):
            ticket = one.dispatch("a", 1.0, PROMPT)
            one.first_token("a", ticket, 2.0)
            answer = Prompt((*PROMPT.blocks, 7), 64_100, 128.0)
            one.done("a", ticket, 3.0, answer)
            one.sharing.publish(Forgotten("b", 4.0), "m", "v1")
            expected = [
                Dispatched("a", ticket, 1.0, PROMPT),
                FirstToken("a", ticket, 2.0),
                Done("a", ticket, 3.0, OUTCOME, answer),
                Forgotten("b", 4.0),
            ]
            await until(lambda: len(two.heard) == len(three.heard) == 4)
            assert two.heard == three.heard == expected
            assert one.heard == []
            assert [peer.sharing.peers for peer in (one, two, three)] == [2, 2, 2]
            assert all(peer.sharing.healthy for peer in (one, two, three))

    run_strictly(run(), uv=True)


def test_news_of_caches_reach_this_router_only(tmp_path: Path) -> None:
    """Its members, with all hashes; a channel to other routers carries none of it."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, two):
            far = FarChannel()
            one.sharing._outboxes.append(Outbox(far, one.sharing._seal))
            blocks = tuple(2**64 - 1 - number for number in range(30_000))
            one.news(BlocksStored("a", 1.0, blocks, 16.0))
            one.news(BlocksRemoved("a", 2.0, blocks[:3]))
            one.news(CacheLost("a", 3.0))
            ticket = one.dispatch("a", 4.0)
            await until(lambda: Dispatched("a", ticket, 4.0) in two.heard)
            *parts, removed, lost, _ = two.heard
            assert sum((part.blocks for part in parts if isinstance(part, BlocksStored)), ()) == blocks
            assert {part[:2] + part[3:] for part in parts} == {("a", 1.0, 16.0)}
            assert (removed, lost) == (BlocksRemoved("a", 2.0, blocks[:3]), CacheLost("a", 3.0))
            assert one.heard == []
            await until(lambda: bool(far.sent))
            kinds = {type(entry) for message in far.sent for entry in Codec().read(message).entries}
            assert Began in kinds
            assert not kinds & {Emptied, Stores, Lacks}

    run_strictly(run(), uv=True)


def test_who_misses_news_believes_in_nothing_that_is_gone(tmp_path: Path) -> None:
    """One message in five is lost while blocks come and go: what is known in the end is there."""

    async def run() -> None:
        random = Random(5)
        async with workers(tmp_path, 2, loss=0.2) as (one, two):
            there: set[int] = set()
            for number in range(200):
                there.add(number)
                one.news(BlocksStored("a", 0.0, (number,)))
                if len(there) > 20:
                    gone = random.choice(sorted(there))
                    there.remove(gone)
                    one.news(BlocksRemoved("a", 0.0, (gone,)))
                await asyncio.sleep(0.002)
            markers = [1000]
            while not any(isinstance(each, BlocksStored) and each.blocks[0] >= 1000 for each in two.heard):
                one.news(BlocksStored("a", 0.0, (markers[-1],)))
                markers.append(markers[-1] + 1)
                await asyncio.sleep(0.002)
            assert believed(two.heard) <= {*there, *markers}
            assert sum(isinstance(each, CacheLost) for each in two.heard) > 3

    run_strictly(run(), uv=True)


def believed(heard: list[Event]) -> set[int]:
    """By somebody who takes every word for true."""
    blocks: set[int] = set()
    for event in heard:
        match event:
            case CacheLost():
                blocks.clear()
            case BlocksStored():
                blocks.update(event.blocks)
            case BlocksRemoved():
                blocks.difference_update(event.blocks)
    return blocks


class FarChannel:
    """To other routers, of which there are none."""

    delay_s = 0.0
    far = True
    healthy = True
    dropped = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def start(self, received: Received) -> None:
        pass

    def send(self, message: bytes, to: Member | None = None) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        pass


def test_counts_are_those_of_the_others(tmp_path: Path) -> None:
    """What a member has itself is not elsewhere."""

    async def run() -> None:
        async with workers(tmp_path, 3) as (one, two, three):
            tickets = [one.dispatch("a"), one.dispatch("a"), two.dispatch("a"), one.dispatch("b")]
            await until(lambda: three.counts == {"a": 3, "b": 1})
            await until(lambda: one.counts == {"a": 1} and two.counts == {"a": 2, "b": 1})
            assert [three.sharing.in_flight_elsewhere(each) for each in "abc"] == [3, 1, 0]
            for peer, ticket, replica in zip((one, one, two, one), tickets, "aaab", strict=True):
                peer.done(replica, ticket)
            await until(lambda: not any((*one.counts.values(), *two.counts.values(), *three.counts.values())))

    run_strictly(run(), uv=True)


def test_one_that_joins_is_told_what_is_open(tmp_path: Path) -> None:
    """At once, not at the next list, also what was dispatched before it was there."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, two):
            one.dispatch("a")
            two.dispatch("b")
            late = Peer(Member(1, 9, 0), [DatagramChannel(tmp_path, Member(1, 9, 0))])
            await late.sharing.start()
            await until(lambda: late.counts == {"a": 1, "b": 1})
            await late.sharing.close()

    run_strictly(run(), uv=True)


def test_what_a_crashed_member_had_is_taken_back(tmp_path: Path) -> None:
    """It said no good-bye: after a moment of silence its requests are over, without an outcome."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, two):
            ticket = one.dispatch("a")
            await until(lambda: two.counts == {"a": 1})
            await cut(one)
            await until(lambda: two.counts == {"a": 0})
            (_, over) = two.heard
            assert isinstance(over, Done)
            assert (over.ticket, over.outcome) == (ticket, None)
            assert two.sharing.peers == 0

    run_strictly(run(), uv=True)


def test_one_that_leaves_is_missed_at_once(tmp_path: Path) -> None:
    """Long before its silence would be noticed."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, two):
            one.dispatch("a")
            await until(lambda: two.counts == {"a": 1})
            await one.sharing.close()
            await until(lambda: two.counts == {"a": 0}, timeout_s=0.5)
            assert two.sharing.peers == 0

    run_strictly(run(), uv=True)


def test_lost_messages_cost_accuracy_only(tmp_path: Path) -> None:
    """One message in five is lost while two members work: the counts come right, and go to nothing."""

    async def run() -> None:
        random = Random(3)
        async with workers(tmp_path, 3, loss=0.2) as peers:
            open_requests: list[tuple[Peer, str, int]] = []
            for _ in range(300):
                peer, replica = random.choice(peers[:2]), random.choice("abcd")
                open_requests.append((peer, replica, peer.dispatch(replica)))
                if random.random() < 0.9:
                    peer, replica, ticket = open_requests.pop(random.randrange(len(open_requests)))
                    peer.done(replica, ticket)
                await asyncio.sleep(0.002)
            there = {name: sum(replica == name for _, replica, _ in open_requests) for name in "abcd"}
            await until(lambda: {**dict.fromkeys("abcd", 0), **peers[2].counts} == there)
            for peer, replica, ticket in open_requests:
                peer.done(replica, ticket)
            await until(lambda: not any(peers[2].counts.values()))
            dropped = sum(outbox.channel.dropped for peer in peers for outbox in peer.sharing._outboxes)
            assert dropped == sum(peer.sharing.dropped for peer in peers) > 10

    run_strictly(run(), uv=True)


class Memory:
    """A policy's knowledge, as large as it is told."""

    def __init__(self, state: bytes = b"") -> None:
        self.state = state

    def dump(self) -> bytes:
        return self.state

    def load(self, state: bytes) -> None:
        self.state = state


def test_one_that_joins_takes_over_what_was_learned(tmp_path: Path) -> None:
    """From one of the others, however large; what is offered for another version stays its own."""

    async def run() -> None:
        learned = Random(1).randbytes(300_000)
        known, other = Memory(learned), Memory(b"other")
        channels = [DatagramChannel(tmp_path, Member(1, number, 0)) for number in range(2)]
        old = Sharing(Member(1, 0, 0), channels[:1])
        old.offer({("m", "v1"): known, ("m", "v2"): other})
        new = Sharing(Member(1, 1, 0), channels[1:])
        mine, unknown = Memory(), Memory(b"kept")
        new.offer({("m", "v1"): mine, ("m", "v3"): unknown})
        await old.start()
        await new.start()
        await until(lambda: mine.state == learned)
        assert (unknown.state, known.state) == (b"kept", learned)
        await new.close()
        await old.close()

    run_strictly(run(), uv=True)


def test_messages_that_are_none(tmp_path: Path) -> None:
    """They are said so, and what comes after them is heard."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, two):
            channel = one.sharing._outboxes[0].channel
            channel.send(b"\xc1 nonsense")
            one.dispatch("a")
            await until(lambda: two.counts == {"a": 1})

    run_strictly(run(), uv=True)
