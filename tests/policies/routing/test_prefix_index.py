"""The index against a plain model of it: lists and sets, and as slow as that."""

import gc
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.index_budget import blocks_within
from policies.routing.prefix_index import SCOPE_BITS, PrefixIndex


def chain(*names: str) -> list[int]:
    """Hashes that are equal as far as the names are."""
    return [hash(names[: depth + 1]) & (2**60 - 1) for depth in range(len(names))]


def index(capacity: int = 100, max_blocks: int = 10_000, scope_share: float = 1.0) -> PrefixIndex:
    return PrefixIndex(max_blocks, capacity, scope_share)


def test_a_prompt_is_found_where_it_was_put_as_far_as_it_is_alike() -> None:
    found = index()
    found.insert("a", chain("system", "one", "two", "three"))
    found.insert("b", chain("system", "one", "other"))
    assert found.match(chain("system", "one", "two", "else")) == {"a": 3, "b": 2}
    assert found.match(chain("system")) == {"a": 1, "b": 1}
    assert found.match(chain("another")) == {}
    assert found.match([]) == {}


def test_a_gap_ends_what_is_held() -> None:
    found = index()
    blocks = chain("system", "one", "two")
    found.insert("a", blocks)
    found.remove("a", blocks[1:2])
    assert found.match(blocks) == {"a": 1}
    found.insert("a", blocks)
    assert found.match(blocks) == {"a": 3}
    found.remove("a", blocks)
    assert found.match(blocks) == {}
    found.remove("nobody", blocks)


def test_a_forgotten_replica_holds_nothing_and_may_begin_again() -> None:
    found = index()
    blocks = chain("system", "one")
    for replica in ("a", "b"):
        found.insert(replica, blocks)
    found.forget("a")
    assert found.match(blocks) == {"b": 2}
    found.insert("a", blocks[:1])
    assert found.match(blocks) == {"a": 1, "b": 2}
    found.forget("never seen")


def test_forgotten_blocks_are_swept_and_their_numbers_used_again() -> None:
    """A fleet whose replicas come and go for ever needs no more memory than one that stays."""
    found = index(capacity=50, max_blocks=200)
    rng = Random(1)
    for number in range(500):
        name = f"pod-{number}"
        for _ in range(20):
            found.insert(name, [rng.getrandbits(60) for _ in range(5)])
        found.forget(name)
    assert len(found) <= 200
    found.insert("last", [rng.getrandbits(60)])
    assert len(found._names) <= 64


def test_what_was_not_used_is_evicted_first() -> None:
    """A conversation that goes on stays, however much passes by; its rivals, never asked again, go."""
    found = index(capacity=64)
    alive = chain("alive", *map(str, range(15)))
    found.insert("a", alive)
    for number in range(200):
        found.insert("a", chain(f"passing {number}", "x", "y"))
        found.insert("a", alive)
        assert found.match(alive) == {"a": 16}
    assert found.match(chain("passing 0", "x", "y")) == {}
    assert found.match(chain("passing 199", "x", "y")) == {"a": 3}


def test_the_deepest_blocks_go_first() -> None:
    """So that what is left of a prompt is still of use."""
    found = index(capacity=10)
    blocks = chain(*map(str, range(10)))
    found.insert("a", blocks)
    found.insert("a", chain("new", "er"))
    assert found.match(blocks) == {"a": 8}


@pytest.mark.parametrize("capacity", [1, 7, 64, 300])
def test_capacity_is_true(capacity: int) -> None:
    """Never more blocks than the engine holds, and after a while exactly so many."""
    found = index(capacity)
    rng = Random(2)
    for _ in range(300):
        found.insert("a", [rng.getrandbits(60) for _ in range(rng.randrange(1, 20))])
        assert found.sizes()["a"] <= capacity
    assert found.sizes()["a"] == capacity
    assert found.capacity_of("a") == capacity


def test_a_mirror_shrinks_and_grows() -> None:
    found = index(capacity=100)
    rng = Random(3)
    blocks = [rng.getrandbits(60) for _ in range(100)]
    found.insert("a", blocks)
    found.resize("a", 40)
    assert found.sizes() == {"a": 40}
    assert sum(found.match([block]) == {"a": 1} for block in blocks) == 40
    found.resize("a", 80)
    found.insert("a", [rng.getrandbits(60) for _ in range(60)])
    assert found.sizes() == {"a": 80}
    assert found.capacity_of("a") == 80
    assert found.capacity_of("unknown") == 100


def test_all_mirrors_together_stay_within_the_bound() -> None:
    """A newcomer takes room from the largest."""
    found = index(capacity=1_000, max_blocks=100)
    rng = Random(4)
    for _ in range(40):
        found.insert("a", [rng.getrandbits(60) for _ in range(5)])
    assert found.sizes() == {"a": 100}
    for _ in range(40):
        found.insert("b", [rng.getrandbits(60) for _ in range(5)])
        assert len(found) <= 100
    assert sorted(found.sizes().values()) in ([49, 51], [50, 50])


def test_one_scope_gets_its_share_and_no_more() -> None:
    """Whoever floods the index evicts only their own."""
    found = index(capacity=100, scope_share=0.5)
    rng = Random(5)

    def blocks(scope: int, count: int) -> list[int]:
        return [rng.getrandbits(48) << SCOPE_BITS | scope for _ in range(count)]

    quiet = blocks(7, 40)
    found.insert("a", quiet)
    for _ in range(100):
        found.insert("a", blocks(9, 10))
    assert found.match(quiet)["a"] >= 38
    assert found.sizes()["a"] <= 100


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "insert", "remove", "forget"]),
        st.sampled_from("abc"),
        st.lists(st.sampled_from("xyz"), min_size=1, max_size=5),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=200)
@given(OPERATIONS, st.lists(st.sampled_from("xyz"), min_size=1, max_size=5))
def test_below_capacity_it_is_a_set_per_replica(
    operations: list[tuple[str, str, list[str]]], asked: list[str]
) -> None:
    found = index()
    model: dict[str, set[int]] = {}
    for what, replica, names in operations:
        blocks = chain(*names)
        if what == "insert":
            found.insert(replica, blocks)
            model.setdefault(replica, set()).update(blocks)
        elif what == "remove":
            found.remove(replica, blocks)
            model.setdefault(replica, set()).difference_update(blocks)
        else:
            found.forget(replica)
            model.pop(replica, None)
    wanted = chain(*asked)
    for replica in "abc":
        held = model.get(replica, set())
        depth = next((i for i, block in enumerate(wanted) if block not in held), len(wanted))
        assert found.match(wanted).get(replica, 0) == depth


def test_blocks_within_a_budget_cost_what_they_are_said_to() -> None:
    """Twice the bound of never-seen blocks: hashes, table and faces stay within the bytes they were given."""
    budget = 4_000_000
    bound = blocks_within(budget)
    assert 24_000 < bound < 48_000
    found = PrefixIndex(bound, bound // 4)
    rng = Random(6)
    for number in range(3 * bound // 50):
        found.insert(f"replica {number % 4}", [rng.getrandbits(60) for _ in range(50)])
    gc.collect()
    hashes = sum(map(sys.getsizeof, found._table))
    eras = sum(sys.getsizeof(era.blocks) for mirror in found._mirrors.values() for era in mirror.eras)
    assert sys.getsizeof(found._table) + hashes + eras <= 1.1 * budget
    assert len(found) == sum(found.sizes().values()) > 0.99 * bound
