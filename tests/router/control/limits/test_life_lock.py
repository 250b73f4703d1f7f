"""Locks on bytes: apart in one process, and gone with their file."""

import os
from pathlib import Path

from router.control.limits.life_lock import lock_byte, unlock_byte


def test_a_byte_has_one_holder_until_it_is_unlocked_or_its_file_closed(tmp_path: Path) -> None:
    one, two = (os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert lock_byte(one, 3)
    assert not lock_byte(two, 3)
    assert lock_byte(two, 4)
    unlock_byte(two, 3)
    assert not lock_byte(two, 3)
    unlock_byte(one, 3)
    assert lock_byte(two, 3)
    os.close(two)
    assert lock_byte(one, 3)
    assert lock_byte(one, 4)
    os.close(one)
