"""A file that all workers of a router map."""

from pathlib import Path

import pytest

from router.control.limits.bucket_file import BucketFile, Geometry
from tests.support.shared_books import SMALL


def test_who_comes_second_finds_what_the_first_wrote(tmp_path: Path) -> None:
    one, two = BucketFile(tmp_path, SMALL), BucketFile(tmp_path, SMALL)
    one.signed[7] = -5
    assert (two.signed[7], two.unsigned[7]) == (-5, 2**64 - 5)
    one.close()
    two.close()
    assert [path.name for path in tmp_path.iterdir()] == ["limits.buckets"]


def test_another_geometry_is_refused(tmp_path: Path) -> None:
    """Its rows would lie elsewhere."""
    BucketFile(tmp_path, SMALL).close()
    with pytest.raises(OSError, match="not one of this router"):
        BucketFile(tmp_path, SMALL._replace(budgets=SMALL.budgets + 4096))


def test_all_of_it_is_there_before_it_is_written(tmp_path: Path) -> None:
    """A full disk shows when the router starts, and not as a signal that kills a worker."""
    BucketFile(tmp_path, SMALL).close()
    file = (tmp_path / "limits.buckets").stat()
    assert file.st_blocks * 512 >= file.st_size == SMALL.size


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        BucketFile(tmp_path / "away", SMALL)


@pytest.mark.parametrize("geometry", [Geometry(), SMALL, Geometry(1, 1, 1), Geometry(1000, 77, 300)])
def test_the_parts_do_not_overlap(geometry: Geometry) -> None:
    assert 8 * (1 + geometry.places) <= geometry.budget_hashes_at
    assert geometry.budget_hashes_at + 16 * geometry.budgets <= geometry.tats_at
    assert geometry.tats_at + 8 * geometry.budgets <= geometry.slots_hashes_at
    assert geometry.slots_hashes_at + 16 * geometry.slots <= geometry.cells_at
    assert geometry.cells_at + 8 * geometry.places * geometry.slots <= geometry.size
