from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from loadtest.engine.kv_cache import KvCache, chain_hash


class Mirror:
    """Rebuilds the set of known hashes from events alone."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int | None, tuple[int, ...]]] = {}

    def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None:
        size = len(token_ids) // len(hashes)
        for index, block_hash in enumerate(hashes):
            assert block_hash not in self.known
            self.known[block_hash] = (parent, tuple(token_ids[index * size : (index + 1) * size]))
            parent = block_hash

    def removed(self, hashes: Sequence[int]) -> None:
        for block_hash in hashes:
            del self.known[block_hash]

    def cleared(self) -> None:
        self.known.clear()


def hashes_of(tokens: Sequence[int], size: int) -> list[int]:
    chained: list[int] = []
    for start in range(0, len(tokens) - size + 1, size):
        chained.append(chain_hash(chained[-1] if chained else 0, tokens[start : start + size]))
    return chained


def fill(cache: KvCache, tokens: Sequence[int]) -> list[int]:
    """Run one sequence through the cache, leaving its blocks held."""
    hashes = hashes_of(tokens, cache.block_size)
    found = cache.find(hashes)
    cache.hold(found)
    taken = cache.take(len(hashes) - len(found))
    assert taken is not None
    blocks = found + taken
    start = len(found)
    parent = hashes[start - 1] if start else None
    cache.publish(
        taken, hashes[start:], parent, tokens[start * cache.block_size : len(hashes) * cache.block_size]
    )
    return blocks


def test_released_blocks_are_found_again() -> None:
    """Content outlives its request until the block is needed."""
    cache = KvCache(8, 2)
    blocks = fill(cache, range(6))
    cache.release(blocks)
    assert cache.free == 8
    assert cache.find(hashes_of(range(6), 2)) == blocks
    assert cache.find(hashes_of([0, 1, 9, 9], 2)) == blocks[:1]


def test_a_prefix_outlives_its_tail() -> None:
    """Of a finished sequence the last block is evicted first, so that beginnings stay."""
    cache = KvCache(4, 2)
    cache.release(fill(cache, range(6)))
    assert cache.take(2) is not None
    assert len(cache.find(hashes_of(range(6), 2))) == 2


def test_least_recently_used_goes_first() -> None:
    """A sequence that was used again outlives one that was not."""
    cache = KvCache(4, 2)
    first, second = [1, 2, 3, 4], [5, 6, 7, 8]
    cache.release(fill(cache, first))
    cache.release(fill(cache, second))
    cache.release(fill(cache, first))
    assert cache.take(2) is not None
    assert len(cache.find(hashes_of(first, 2))) == 2
    assert cache.find(hashes_of(second, 2)) == []


def test_shared_blocks_are_freed_by_their_last_holder() -> None:
    """Two holders of one prefix cost its blocks once."""
    cache = KvCache(8, 2)
    one, other = fill(cache, range(4)), fill(cache, range(4))
    assert one == other and cache.free == 6
    cache.release(one)
    assert cache.free == 6
    cache.release(other)
    assert cache.free == 8


def test_too_few_blocks_takes_none() -> None:
    """An impossible wish changes nothing."""
    cache = KvCache(2, 2)
    assert cache.take(3) is None
    assert cache.free == 2


def test_clearing_waits_for_holders() -> None:
    """Nothing is forgotten while a request holds blocks; afterwards everything is."""
    cache = KvCache(4, 2)
    mirror = Mirror()
    cache.listeners.append(mirror)
    blocks = fill(cache, range(4))
    assert not cache.clear() and len(mirror.known) == 2
    cache.release(blocks)
    assert cache.clear() and not mirror.known
    assert cache.find(hashes_of(range(4), 2)) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.booleans()), max_size=60))
def test_events_tell_exactly_what_can_be_found(moves: list[tuple[int, int, bool]]) -> None:
    """A listener that only sees events knows every hash that the cache can find, and its parent."""
    cache = KvCache(10, 2)
    mirror = Mirror()
    cache.listeners.append(mirror)
    held: list[list[int]] = []
    for kind, length, release in moves:
        tokens = [kind] * 2 * length
        hashes = hashes_of(tokens, 2)
        known = cache.find(hashes)
        if len(hashes) - len(known) + cache.idle(known) <= cache.free:
            held.append(fill(cache, tokens))
        if release and held:
            cache.release(held.pop(0))
        for hashes in (hashes_of([number] * 18, 2) for number in range(4)):
            found = len(cache.find(hashes))
            assert all(block_hash in mirror.known for block_hash in hashes[:found])
            assert found == len(hashes) or hashes[found] not in mirror.known
            for index in range(found):
                assert mirror.known[hashes[index]][0] == (hashes[index - 1] if index else None)
        assert cache.cached == len(mirror.known)
    for blocks in held:
        cache.release(blocks)
    assert cache.free == cache.num_blocks


def test_losing_content_leaves_holders_alone() -> None:
    """Held blocks stay held, nobody finds them, and every listener is told."""
    cache = KvCache(4, 2)
    told: list[str] = []

    class Ear:
        def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None: ...
        def removed(self, hashes: Sequence[int]) -> None: ...
        def cleared(self) -> None:
            told.append("cleared")

    cache.listeners.append(Ear())
    held = cache.take(2)
    assert held is not None
    cache.publish(held, [1, 2], None, [])
    assert cache.clear() is False and cache.find([1, 2]) == held
    cache.lose()
    assert cache.find([1, 2]) == [] and cache.free == 2 and told == ["cleared"]
    cache.release(held)
    assert cache.free == 4
