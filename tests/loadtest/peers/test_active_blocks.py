from loadtest.peers.active_blocks import ActiveBlocks
from tests.support.routing import NOW


def test_shared_blocks_count_once() -> None:
    """Two requests with a common prefix of two, and what a third would add."""
    active = ActiveBlocks()
    active.begin("a", 1, [1, 2, 3], NOW)
    active.begin("a", 2, [1, 2, 4], NOW)
    assert (active.after([], "a"), active.after([], "b")) == (4, 0)
    assert (active.after([1, 2, 4, 5], "a"), active.after([1, 2, 4, 5], "b")) == (5, 4)
    assert active.after([7, 8], "a") == 6
    assert active.after([1, 2, 3], "a") == 4


def test_a_block_is_held_while_anyone_uses_it() -> None:
    """The first that ends frees only its own."""
    active = ActiveBlocks()
    active.begin("a", 1, [1, 2, 3], NOW)
    active.begin("a", 2, [1, 2, 4], NOW)
    active.end("a", 1)
    assert active.after([], "a") == 3
    active.end("a", 2)
    assert active.after([], "a") == 0


def test_events_told_twice_late_or_never() -> None:
    """None of them leaves a block behind."""
    active = ActiveBlocks()
    active.end("a", 1)
    active.begin("a", 1, [1, 2], NOW)
    active.begin("a", 1, [1, 2], NOW)
    active.end("a", 1)
    active.end("a", 1)
    assert active.after([], "a") == 0
    active.begin("a", 2, [1, 2], NOW)
    active.begin("a", 3, [5], NOW + 3_601)
    assert active.after([], "a") == 1
    active.forget("a")
    active.end("a", 3)
    assert active.after([], "a") == 0
