"""When a file is believed to have changed."""

from pathlib import Path

from router.config.file_watch import FileWatch


def test_a_change_counts_when_the_file_stands_still(tmp_path: Path) -> None:
    """At the second look that sees the same; the file that is there at first counts too."""
    file = tmp_path / "t"
    file.write_text("a")
    watch = FileWatch(file)
    assert [watch.look() for _ in range(4)] == [False, True, False, False]
    file.write_text("ab")
    assert watch.look() is False
    file.write_text("abc")
    assert [watch.look() for _ in range(3)] == [False, True, False]


def test_a_file_of_the_same_size_and_time_by_another_name(tmp_path: Path) -> None:
    """Put in place by renaming: it is another file."""
    file, new = tmp_path / "t", tmp_path / "new"
    file.write_text("a")
    watch = FileWatch(file)
    watch.look()
    watch.look()
    new.write_text("b")
    new.replace(file)
    assert [watch.look() for _ in range(3)] == [False, True, False]


def test_a_file_that_goes_has_changed(tmp_path: Path) -> None:
    """And one that comes; none at all is as the other one stood still from the start."""
    file = tmp_path / "t"
    watch = FileWatch(file)
    assert [watch.look() for _ in range(2)] == [True, False]
    file.write_text("a")
    assert [watch.look() for _ in range(2)] == [False, True]
    file.unlink()
    assert [watch.look() for _ in range(3)] == [False, True, False]
