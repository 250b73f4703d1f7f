"""Keys find their rows again, whoever else is there."""

import mmap
from collections.abc import Iterator
from hashlib import blake2b

import pytest

from router.control.limits.rows import NONE, REACH, Rows

START = 4096
COUNT = 1000


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, START + 16 * COUNT) as memory:
        yield memory


def unused(memory: mmap.mmap, row: int) -> bool:
    return memory[START + 16 * row : START + 16 * row + 16] == bytes(16)


def claim(rows: Rows, memory: mmap.mmap, key: str) -> int:
    return rows.claim(key, lambda row: unused(memory, row), ())


def test_every_key_has_a_row_of_its_own_and_everybody_finds_it(memory: mmap.mmap) -> None:
    """Also one who did not claim it, and after others were claimed around it."""
    rows, other = Rows(memory, START, COUNT), Rows(memory, START, COUNT)
    found = {f"k{number}": claim(rows, memory, f"k{number}") for number in range(400)}
    assert len(set(found.values())) == 400
    assert not set(found.values()) & {NONE}
    for _ in range(2):
        assert {key: rows.find(key) for key in found} == {key: other.find(key) for key in found} == found
    assert rows.find("k400") == NONE


def test_a_row_that_another_key_took_is_not_found(memory: mmap.mmap) -> None:
    """Whoever remembers it looks whether it is still the key's."""
    rows, other = Rows(memory, START, 2), Rows(memory, START, 2)
    assert rows.claim("a", lambda row: True, ()) == rows.find("a") == 1
    assert other.claim("b", lambda row: True, ()) == 1
    assert (rows.find("a"), rows.find("b"), other.find("b")) == (NONE, 1, 1)


def test_a_full_neighbourhood_has_no_row(memory: mmap.mmap) -> None:
    """Looked for in `REACH` rows, and no further."""
    rows = Rows(memory, START, COUNT)
    seen: list[int] = []

    def in_use(row: int) -> bool:
        seen.append(row)
        return False

    assert rows.claim("a", in_use, ()) == NONE
    assert seen == list(range(seen[0], seen[0] + REACH))
    assert 1 <= seen[0] <= COUNT - REACH


def test_what_is_spared_is_not_claimed(memory: mmap.mmap) -> None:
    rows = Rows(memory, START, 4)
    assert rows.claim("a", lambda row: True, (1, 2)) == 3


def test_no_more_keys_are_remembered_than_a_process_has_memory_for(
    memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was forgotten is looked for in the file."""
    monkeypatch.setattr("router.control.limits.rows._KNOWN", 3)
    rows = Rows(memory, START, COUNT)
    found = {f"k{number}": claim(rows, memory, f"k{number}") for number in range(10)}
    assert {key: rows.find(key) for key in found} == found
    assert len(rows._known) <= 3


def test_a_hash_across_two_rows_is_nobodys(memory: mmap.mmap) -> None:
    rows = Rows(memory, START, 4)
    wanted = blake2b(b"a", digest_size=16).digest()
    memory[START + 24 : START + 40] = wanted
    assert rows.find("a") == NONE
    memory[START + 48 : START + 64] = wanted
    assert rows.find("a") == 3
