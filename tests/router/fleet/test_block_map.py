"""From engine's names to the router's hashes: what is understood, what is not, and what is bounded."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.engines.kv_cache_events import Cleared, Removed, Stored
from router.fleet.block_map import BlockMap
from router.fleet.token_blocks import TokenBlocks

HASHER = TokenBlocks(b"key", 4)
IDS = list(range(100))


def block_map(adapter: str = "", max_blocks: int = 1000, unit: int = 4) -> BlockMap:
    return BlockMap(TokenBlocks(b"key", unit), adapter, max_blocks)


def chain(tokens: int, unit: int = 4) -> tuple[int, ...]:
    return TokenBlocks(b"key", unit).hash(IDS[:tokens])


def test_a_prompt_and_its_events_agree() -> None:
    """Told in two pieces, under the engine's names."""
    known = block_map()
    assert known.apply(Stored(None, [71, 72], IDS[:8], 4)) == (list(chain(8)), [], False)
    assert known.apply(Stored(72, [b"third"], IDS[8:12], 4)) == ([chain(12)[-1]], [], False)
    assert known.apply(Removed([72])) == ([], [chain(8)[-1]], False)
    assert known.hashes == {chain(12)[0], chain(12)[2]}
    assert known.apply(Cleared()) == ([], [], True)
    assert (len(known), known.hashes) == (0, frozenset())


def test_engines_with_larger_blocks() -> None:
    """One of the engine's is several of the router's, so that engines of different sizes share an index."""
    known = block_map()
    assert known.apply(Stored(None, [1], IDS[:8], 8)).stored == list(chain(8))
    assert known.apply(Stored(1, [2], IDS[8:16], 8)).stored == list(chain(16)[2:])
    assert known.apply(Removed([1])).removed == list(chain(8))
    assert known.fits


def test_engines_whose_blocks_do_not_fit() -> None:
    """Six is no multiple of four: the first four tokens are of use, and nothing can follow."""
    known = block_map()
    assert known.apply(Stored(None, [1, 2], IDS[:12], 6)).stored == list(chain(4))
    assert known.apply(Stored(1, [3], IDS[12:18], 6)).stored == []
    assert (known.fits, known.orphans) == (False, 1)


def test_a_last_block_may_be_partial() -> None:
    """TensorRT-LLM keeps those, too."""
    known = block_map()
    assert known.apply(Stored(None, [1], IDS[:8], 8)).stored == list(chain(8))
    assert known.apply(Stored(1, [2], IDS[8:13], 5)).stored == [chain(12)[-1]]
    assert known.apply(Stored(1, [3], IDS[8:10], 2)).stored == []
    assert known.fits
    assert known.apply(Removed([3, 2])).removed == [chain(12)[-1]]


def test_an_unknown_parent_means_lost_events() -> None:
    """Nothing is stored then; the blocks are counted."""
    known = block_map()
    assert known.apply(Stored(9, [1, 2], IDS[:8], 4)) == ([], [], False)
    assert known.apply(Removed([1, 9])) == ([], [], False)
    assert (known.orphans, len(known)) == (2, 0)


def test_other_adapters_are_other_versions() -> None:
    """Neither hears of the other's."""
    base, tuned = block_map(), block_map("support")
    event = Stored(None, [1], IDS[:4], 4, adapter="support")
    assert base.apply(event).stored == []
    assert tuned.apply(event).stored == list(chain(4))


def test_salted_blocks_are_apart() -> None:
    """The first block's extra key changes the whole chain."""
    known = block_map()
    stored = known.apply(Stored(None, [1, 2], IDS[:8], 4, extras=[b"salt", b""])).stored
    assert stored == list(HASHER.hash(IDS[:8], extra=b"salt"))
    assert not set(stored) & set(chain(8))


def test_ranks_are_apart_and_add_up() -> None:
    """A block is there while one rank has it, and one rank's loss takes what the others lack."""
    known = block_map()
    assert known.apply(Stored(None, [1], IDS[:4], 4), 0).stored == list(chain(4))
    known.apply(Stored(None, [1], IDS[:4], 4), 1)
    known.apply(Stored(1, [2], IDS[4:8], 4), 1)
    assert known.apply(Removed([1]), 0).removed == []
    assert known.apply(Stored(None, [1], IDS[:4], 4), 0).stored == list(chain(4))
    assert known.clear(1) == ([], [chain(8)[-1]], False)
    assert known.clear(0) == ([], [], True)


def test_media() -> None:
    """A block is there while one medium of the replica's own has it; shared storage prefers nobody."""
    known = block_map()
    known.apply(Stored(None, [1], IDS[:4], 4))
    known.apply(Stored(None, [1, 8], [], 4, medium="CPU"))
    assert known.apply(Removed([1], "GPU")).removed == []
    assert known.apply(Removed([1], "STORAGE")).removed == []
    assert known.apply(Removed([1], "CPU")).removed == list(chain(4))
    assert known.apply(Stored(None, [2], IDS[:4], 4, medium="STORAGE")).stored == []
    known.apply(Stored(None, [3], IDS[:4], 4))
    assert known.apply(Removed([3], None)).removed == list(chain(4))


def test_one_group_of_a_hybrid_model_is_heard() -> None:
    """The lowest; when a lower one turns up, it alone counts."""
    known = block_map()
    assert known.apply(Stored(None, [1], IDS[:4], 4, group=1)).stored == list(chain(4))
    assert known.apply(Stored(None, [2], IDS[:8][4:], 4, group=2)).stored == []
    assert known.apply(Removed([1], group=2)).removed == []
    assert known.apply(Stored(None, [1], IDS[:4], 4, group=0)) == (list(chain(4)), [], True)
    assert known.apply(Removed([1], group=1)).removed == []
    assert known.apply(Removed([1], group=0)).removed == list(chain(4))


def test_what_is_told_twice_is_known_once() -> None:
    """An engine that computed a block twice tells of it twice, and removes it perhaps once."""
    known = block_map()
    event = Stored(None, [1], IDS[:4], 4)
    assert known.apply(event) == known.apply(event)
    assert known.apply(Removed([1])).removed == list(chain(4))


def test_two_names_of_one_block() -> None:
    """Older releases do not tell salts: the block is there while one of the two is."""
    known = block_map()
    known.apply(Stored(None, [1, 2], IDS[:4] + IDS[:4], 4))
    known.apply(Stored(None, [3], IDS[:4], 4))
    assert known.apply(Removed([1])).removed == []
    assert known.apply(Removed([3])).removed == list(chain(4))


def test_a_name_that_means_something_else_now() -> None:
    """What it meant before is gone."""
    known = block_map()
    known.apply(Stored(None, [1], IDS[:4], 4))
    assert known.apply(Stored(None, [1], IDS[4:8], 4)) == (list(HASHER.hash(IDS[4:8])), list(chain(4)), False)


def test_memory_is_bounded() -> None:
    """The oldest blocks are given up, and said to be gone; their later removal is no news."""
    known = block_map(max_blocks=3)
    change = known.apply(Stored(None, list(range(1, 6)), IDS[:20], 4))
    assert (change.stored, change.removed) == (list(chain(20)), list(chain(8)))
    assert len(known) == 3
    assert known.apply(Removed([1])).removed == []


class Traffic(RuleBasedStateMachine):
    """An engine that caches, evicts and flushes as it likes, and who follows by events alone."""

    def __init__(self) -> None:
        super().__init__()
        self.known = block_map(max_blocks=60)
        self.told: set[int] = set()
        self.cached: dict[tuple[int, ...], int] = {}

    def hear(self, event: Stored | Removed | Cleared) -> None:
        change = self.known.apply(event)
        if change.lost:
            self.told.clear()
        self.told |= set(change.stored)
        self.told -= set(change.removed)

    @rule(ids=st.lists(st.integers(0, 1), min_size=8, max_size=32))
    def compute(self, ids: list[int]) -> None:
        prefixes = [tuple(ids[:end]) for end in range(8, len(ids) + 1, 8)]
        start = next((at for at, each in enumerate(prefixes) if each not in self.cached), len(prefixes))
        new = [each for each in prefixes[start:] if each not in self.cached]
        if new != prefixes[start:] or len(self.cached) + len(new) > 60:
            return
        for each in new:
            self.cached[each] = hash(each)
        if new:
            parent = hash(prefixes[start - 1]) if start else None
            self.hear(Stored(parent, [hash(each) for each in new], ids[start * 8 : len(prefixes) * 8], 8))

    @rule(number=st.integers(0, 100))
    def evict(self, number: int) -> None:
        if self.cached:
            leaf = sorted(self.cached)[number % len(self.cached)]
            self.hear(Removed([self.cached.pop(leaf)]))

    @rule()
    def flush(self) -> None:
        self.cached.clear()
        self.hear(Cleared())

    @invariant()
    def agrees(self) -> None:
        expected = {each for ids in self.cached for each in HASHER.hash(ids)[-2:]}
        assert self.told == self.known.hashes == expected


Traffic.TestCase.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestTraffic = Traffic.TestCase
