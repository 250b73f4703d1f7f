"""Generations by their numbers, and what other processes read of them."""

import stat
from pathlib import Path

import pytest
from msgspec import structs

from router.config.history import MOST, Generation, History, NoSuchGeneration
from router.config.published import Published

FIRST = Generation(number=1, at=1.0, why="start", text="a = 1", shown="a = 1")


def history(count: int) -> History:
    made = History([FIRST])
    for _ in range(count - 1):
        made.add(structs.replace(FIRST, number=made.next_number, text="b", why="the file changed"))
    return made


def test_the_last_one_is_in_force() -> None:
    """Numbers count up from 1; the oldest are forgotten."""
    made = history(MOST + 5)
    assert made.in_force.number == MOST + 5
    assert [each.number for each in made.generations] == list(range(6, MOST + 6))
    assert made.numbered(6).number == 6
    with pytest.raises(NoSuchGeneration, match=f"there is no generation 5; there are 6 to {MOST + 5}"):
        made.numbered(5)


def test_other_words_for_the_one_in_force() -> None:
    """It keeps its number and everything else."""
    made = history(2)
    made.reword("c")
    assert [each.text for each in made.generations] == ["a = 1", "c"]
    assert made.in_force.number == 2


def test_another_process_reads_what_was_written(tmp_path: Path) -> None:
    """All of it, and nobody else may: there are secrets in it."""
    published = Published(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        published.read()
    for count in (1, 3):
        published.write(history(count))
        assert published.read().generations == history(count).generations
    assert stat.S_IMODE(published.path.stat().st_mode) == 0o600
