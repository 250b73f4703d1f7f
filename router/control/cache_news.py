"""What replicas say of their caches, between the members of one router: for those that cannot ask them.

Numbered by replica: who missed some must not believe in blocks that are gone. Long chains go in parts, so
that no message grows with a prompt.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from policies.routing.events import BlocksRemoved, BlocksStored, CacheLost, CacheNews
from router.control.messages import Emptied, Lacks, Member, Place, Stores

MAX_BLOCKS: Final = 4096
"""Of one entry; each takes nine bytes."""

NewsEntry = Emptied | Stores | Lacks


class NewsWriter:
    """One member's news, numbered."""

    def __init__(self) -> None:
        self._next: Counter[Place] = Counter()

    def entries(self, news: CacheNews, place: Place) -> Iterator[NewsEntry]:
        """In the order of the chain."""
        match news:
            case CacheLost(_, at):
                yield Emptied(place, self._number(place), at)
            case BlocksStored(_, at, blocks, block_tokens):
                for part in _parts(blocks):
                    yield Stores(place, self._number(place), at, part, block_tokens)
            case BlocksRemoved(_, at, blocks):
                for part in _parts(blocks):
                    yield Lacks(place, self._number(place), at, part)

    def _number(self, place: Place) -> int:
        self._next[place] += 1
        return self._next[place]


class NewsReader:
    """The news of all other members: of one replica, one tells at a time."""

    def __init__(self) -> None:
        self._expected: dict[Place, tuple[Member, int]] = {}

    def read(self, teller: Member, entry: NewsEntry, shift_s: float) -> Iterator[CacheNews]:
        """`shift_s` is added to the teller's time. What follows a gap follows the loss of all.

        Who joins later goes on from what a colleague has taught it.
        """
        place, number = entry.place, entry.number
        replica, at = place.replica, entry.at + shift_s
        missed = self._expected.get(place, (teller, number)) != (teller, number)
        self._expected[place] = teller, number + 1
        if missed or isinstance(entry, Emptied):
            yield CacheLost(replica, at)
        match entry:
            case Stores(blocks=blocks, block_tokens=block_tokens):
                yield BlocksStored(replica, at, tuple(blocks), block_tokens)
            case Lacks(blocks=blocks):
                yield BlocksRemoved(replica, at, tuple(blocks))


def _parts(blocks: Sequence[int]) -> Iterator[Sequence[int]]:
    return (blocks[begin : begin + MAX_BLOCKS] for begin in range(0, len(blocks), MAX_BLOCKS))
