"""The nodes of a Redis Cluster, and which of them has the keys of a tag.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.crc import key_slot

from router.control.limits.failures import Failure
from router.control.limits.node import Node
from router.control.limits.scripts import pack

LOOK_AGAIN_S = 0.25
MOST_TAGS = 65_536

Address = tuple[str, int]


class Range(NamedTuple):
    first: int
    last: int
    address: Address


class Cluster:
    """`make` gives a node that is not known yet. The map is asked for again while it may be wrong."""

    def __init__(self, first: Node, make: Callable[[Address], Node]) -> None:
        self._make = make
        self._first = first
        self._nodes: dict[Address, Node] = {}
        self._ranges: Sequence[Range] = ()
        self._by_tag: dict[str, Node] = {}
        self._wanted = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def nodes(self) -> Sequence[Node]:
        return list(self._nodes.values())

    def start(self) -> None:
        self._looking = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(
            *self._closing, *(node.close() for node in self.nodes if node is not self._first)
        )

    def node_of(self, tag: str) -> Node:
        """Of a tag as `turnout:{pool}`. Of nothing: one that is here, if any is."""
        node = self._by_tag.get(tag)
        if node is None:
            if not tag:
                return next((each for each in self.nodes if each.here), self._first)
            node = self._node_of_slot(key_slot(tag.partition("{")[2].rstrip("}").encode()))
            if len(self._by_tag) >= MOST_TAGS:
                self._by_tag.clear()
            self._by_tag[tag] = node
        return node

    def node_at(self, failure: Failure, asked: Node) -> Node | None:
        """Where MOVED or ASK point; the map is looked at again."""
        self.look_again()
        host, port = failure.address
        return self._nodes.get((host or asked.address[0], port))

    def look_again(self) -> None:
        self._wanted.set()

    def learn(self, asked: Node, slots: Sequence[Any], own_id: bytes = b"") -> None:
        """`slots`: the answer to CLUSTER SLOTS of `asked`, whose id is `own_id` where it was asked too."""
        ranges = []
        for first, last, (host, port, node_id, *_), *_ in slots:
            address = (
                asked.address if node_id == own_id else (host.decode() if host else asked.address[0], port)
            )
            ranges.append(Range(first, last, address))
        self._ranges = ranges
        self._by_tag.clear()
        addresses = {each.address for each in ranges}
        for address in addresses - self._nodes.keys():
            node = self._first if address == self._first.address else self._make(address)
            self._nodes[address] = node
        for address in self._nodes.keys() - addresses:
            self._part_with(self._nodes.pop(address))
        for address, node in self._nodes.items():
            own = [each for each in ranges if each.address == address]
            if not _within(own, key_slot(node.tag.partition("{")[2].rstrip("}").encode())):
                node.tag = _tag_within(own)
            if node is not self._first:
                node.start()

    def _part_with(self, node: Node) -> None:
        if node is not self._first:
            task = asyncio.create_task(node.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _node_of_slot(self, slot: int) -> Node:
        for first, last, address in self._ranges:
            if first <= slot <= last:
                return self._nodes[address]
        return self._first

    async def _keep_looking(self) -> None:
        while True:
            if all(node.here for node in self.nodes):
                await self._wanted.wait()
            self._wanted.clear()
            node = self.node_of("")
            if node.here:
                call = node.call(pack(("CLUSTER", "SLOTS")))
                await call
                if not isinstance(call.reply, Failure):
                    self.learn(node, call.reply)
            await asyncio.sleep(LOOK_AGAIN_S)


def _within(ranges: Sequence[Range], slot: int) -> bool:
    return any(first <= slot <= last for first, last, _ in ranges)


def _tag_within(ranges: Sequence[Range]) -> str:
    """A tag whose keys are in one of these ranges."""
    number = next(number for number in range(1 << 20) if _within(ranges, key_slot(b"n%d" % number)))
    return f"turnout:{{n{number}}}"
