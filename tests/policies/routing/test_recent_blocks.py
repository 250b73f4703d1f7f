from random import Random

import pytest

from policies.routing.events import Prompt
from policies.routing.recent_blocks import RecentBlocks, tokens_of


def test_hits_are_leading_blocks() -> None:
    """Each replica's own, in the order asked for; a block after a gap counts for nothing."""
    seen = RecentBlocks()
    seen.add("a", [1, 2, 3, 4])
    seen.add("b", [1, 2])
    seen.add("c", [2, 3, 4])
    assert seen.hits([1, 2, 3, 9], ["b", "a", "c", "stranger"]) == [2, 3, 0, 0]
    assert seen.hits([], ["a"]) == [0]
    assert seen.hits([1, 2, 3, 4], []) == []


def test_eviction_is_of_the_least_recent_and_deepest_first() -> None:
    """A prompt seen again is recent again; what makes room is the tail of the oldest."""
    seen = RecentBlocks()
    seen.add("a", [1, 2, 3], capacity=6)
    seen.add("a", [7, 8, 9], capacity=6)
    seen.add("a", [1, 2, 3], capacity=6)
    seen.add("a", [4, 5], capacity=6)
    assert seen.hits([7, 8, 9], ["a"]) == [1]
    assert seen.hits([1, 2, 3], ["a"]) == [3]
    assert seen.size("a") == 6


def test_a_prompt_longer_than_the_capacity_keeps_its_head() -> None:
    """The other way round, nothing of it would ever hit."""
    seen = RecentBlocks()
    seen.add("a", list(range(100)), capacity=10)
    assert seen.hits(range(100), ["a"]) == [10]


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    """Other replicas keep theirs, and a newcomer in its place starts with nothing."""
    seen = RecentBlocks()
    for replica in "abc":
        seen.add(replica, [1, 2, 3])
    seen.forget("b")
    seen.forget("b")
    seen.add("d", [1])
    assert seen.hits([1, 2, 3], ["a", "b", "c", "d"]) == [3, 0, 3, 1]
    for replica in "acd":
        seen.forget(replica)
    assert not seen.is_known(1)
    assert seen._holders == {}


@pytest.mark.parametrize("seed", range(5))
def test_it_says_what_plain_sets_would(seed: int) -> None:
    """2,000 random changes: every hit equals that of a set of blocks per replica."""
    rng = Random(seed)
    seen = RecentBlocks()
    sets: dict[str, set[int]] = {replica: set() for replica in "abcdefgh"}
    for _ in range(2_000):
        replica = rng.choice("abcdefgh")
        blocks = rng.choices(range(12), k=rng.randint(0, 6))
        match rng.randrange(5):
            case 0:
                seen.forget(replica)
                sets[replica].clear()
            case 1:
                seen.remove(replica, blocks)
                sets[replica].difference_update(blocks)
            case _:
                seen.add(replica, blocks)
                sets[replica].update(blocks)
        asked = rng.sample(range(12), 5)
        expected = [next((n for n in range(5) if asked[n] not in held), 5) for held in sets.values()]
        assert seen.hits(asked, list(sets)) == expected
        assert [seen.size(each) for each in sets] == [len(held) for held in sets.values()]
        assert seen.is_known(0) == any(0 in held for held in sets.values())


def test_replicas_that_left_are_forgotten() -> None:
    """A fleet whose addresses change for ever takes no more memory; those in use stay."""
    seen = RecentBlocks()
    for number in range(5_000):
        seen.add("steady", [1])
        seen.add(f"pod-{number}", [1, number + 10])
    assert len(seen._shelves) <= 1024
    assert len(seen._holders) <= 1025
    assert seen.hits([1], ["steady", "pod-0", "pod-4999"]) == [1, 0, 1]


def test_tokens_of_blocks() -> None:
    """The length of a prompt is an estimate: a hit is never longer than the prompt."""
    prompt = Prompt([1, 2, 3], tokens=40, block_tokens=16.0)
    assert [tokens_of(prompt, hit) for hit in (0, 2, 3)] == [0, 32, 40]
