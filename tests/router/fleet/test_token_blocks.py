"""Equal prefixes have equal hashes, and nothing else has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fleet.token_blocks import TokenBlocks

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=40)
BLOCKS = TokenBlocks(b"key", 4)


@given(IDS, IDS, IDS)
def test_prefixes(shared: list[int], one: list[int], other: list[int]) -> None:
    """As many equal hashes as there are full equal blocks."""
    left, right = shared + one, shared + other
    equal = next((at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None)
    same = (min(len(left), len(right)) if equal is None else equal) // 4
    hashes = BLOCKS.hash(left), BLOCKS.hash(right)
    assert [len(each) for each in hashes] == [len(left) // 4, len(right) // 4]
    assert hashes[0][:same] == hashes[1][:same]
    assert not set(hashes[0][same:]) & set(hashes[1][same:])


@given(IDS, st.integers(0, 10))
def test_a_chain_can_be_taken_up(ids: list[int], at: int) -> None:
    """In pieces, as events tell it, or at once, as prompts are."""
    first = BLOCKS.hash(ids[: at * 4])
    rest = BLOCKS.hash(ids[at * 4 :], first[-1] if first else None)
    assert first + rest == BLOCKS.hash(ids)


def test_what_keeps_chains_apart() -> None:
    """The key, the unit, and whatever else a block was made with."""
    ids = list(range(8))
    chains = [
        BLOCKS.hash(ids),
        TokenBlocks(b"other", 4).hash(ids),
        TokenBlocks(b"key", 8).hash(ids),
        BLOCKS.hash(ids, extra=b"salt"),
        BLOCKS.hash(ids, parent=1),
    ]
    assert len({each for chain in chains for each in chain}) == 9
    assert all(0 <= each < 2**60 for chain in chains for each in chain)


@pytest.mark.parametrize("wrong", [-1, 2**32])
def test_what_is_no_token_id(wrong: int) -> None:
    """It is refused."""
    with pytest.raises(OverflowError):
        BLOCKS.hash([wrong])
