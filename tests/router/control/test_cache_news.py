"""News of caches: numbered, in parts, and after a gap nothing that is gone is believed."""

from collections.abc import Iterable

from policies.routing.events import BlocksRemoved, BlocksStored, CacheLost, CacheNews
from router.control.cache_news import MAX_BLOCKS, NewsEntry, NewsReader, NewsWriter
from router.control.messages import Member, Place

A, B = Place("m", "v1", "a"), Place("m", "v1", "b")
ONE, OTHER = Member(1, 0, 0), Member(1, 0, 1)
STORED = BlocksStored("a", 1.0, (1, 2, 3), 16.0)
REMOVED = BlocksRemoved("a", 2.0, (2,))
LOST = CacheLost("a", 3.0)


def written(*news: CacheNews, place: Place = A) -> list[NewsEntry]:
    writer = NewsWriter()
    return [entry for each in news for entry in writer.entries(each, place)]


def read(
    reader: NewsReader, entries: Iterable[NewsEntry], teller: Member = ONE, shift_s: float = 0.0
) -> list[CacheNews]:
    return [news for entry in entries for news in reader.read(teller, entry, shift_s)]


def test_there_and_back() -> None:
    """As it was, on the reader's clock."""
    everything = [STORED, REMOVED, LOST, STORED._replace(block_tokens=None)]
    assert read(NewsReader(), written(*everything)) == everything
    assert read(NewsReader(), written(LOST), shift_s=10.0) == [CacheLost("a", 13.0)]


def test_long_chains_go_in_parts() -> None:
    """In their order, whatever they say; nothing to say is no entry."""
    blocks = tuple(range(2 * MAX_BLOCKS + 1))
    for news in (STORED._replace(blocks=blocks), REMOVED._replace(blocks=blocks)):
        entries = written(news)
        assert len(entries) == 3
        assert sum((each.blocks for each in read(NewsReader(), entries)), ()) == blocks  # type: ignore[union-attr]
    assert written(STORED._replace(blocks=())) == []


def test_after_a_gap_nothing_is_known() -> None:
    """Of that replica; what comes next is believed again."""
    reader, writer = NewsReader(), NewsWriter()
    first, lost, next_ = (list(writer.entries(each, A)) for each in (STORED, REMOVED, STORED))
    others = list(writer.entries(BlocksStored("b", 1.0, (7,)), B))
    assert read(reader, [*first, *others]) == [STORED, BlocksStored("b", 1.0, (7,))]
    assert read(reader, next_) == [CacheLost("a", 1.0), STORED]
    assert read(reader, writer.entries(REMOVED, A)) == [REMOVED]
    assert read(reader, writer.entries(BlocksRemoved("b", 2.0, (7,)), B)) == [BlocksRemoved("b", 2.0, (7,))]
    assert lost


def test_who_joins_later_goes_on() -> None:
    """It has what a colleague taught it, which must not be lost with the first word."""
    _, *later = written(STORED, REMOVED, STORED)
    assert read(NewsReader(), later) == [REMOVED, STORED]


def test_a_new_teller_begins_with_nothing() -> None:
    """Even if the word by which it said so was lost."""
    reader = NewsReader()
    read(reader, written(STORED))
    assert read(reader, written(LOST, STORED), OTHER) == [LOST, STORED]
    _, *rest = written(LOST, STORED, REMOVED)
    reader = NewsReader()
    read(reader, written(STORED))
    assert read(reader, rest, OTHER) == [CacheLost("a", 1.0), STORED, REMOVED]
