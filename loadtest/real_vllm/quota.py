"""A share of a core for each replica, so that several on one machine are as independent as several machines.

Without it an idle replica is no idle capacity: what one computes, the others wait for. Linux control groups
do it, version 1 or 2, where this user may make them.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from loadtest.bench.processes import StartError

_PERIOD_US: Final = 20_000
"""Short, so that nobody stands still for long."""
_ROOTS: Final = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))


@contextlib.contextmanager
def limited(sessions: Sequence[int], cores: float) -> Iterator[None]:
    """Each session's processes (`setsid`'s number), threads and all, get `cores` together, 1.0 is one core.

    Raises StartError where control groups cannot be made.
    """
    with contextlib.ExitStack() as stack:
        for session in sessions:
            stack.enter_context(_group(session, cores))
        yield


@contextlib.contextmanager
def _group(session: int, cores: float) -> Iterator[None]:
    root = next((root for root in _ROOTS if (root / "cgroup.procs").exists()), _ROOTS[-1])
    group = root / f"turnout-replica-{session}"
    quota_us = round(cores * _PERIOD_US)
    try:
        group.mkdir()
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        for process in processes_of(session):
            (group / "cgroup.procs").write_text(str(process))
    except OSError as error:
        raise StartError(f"--cores-each needs control groups that this user may make: {error}") from error
    try:
        yield
    finally:
        for process in processes_of(session):
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(str(process))
        with contextlib.suppress(OSError):
            group.rmdir()


def processes_of(session: int) -> list[int]:
    """All that belong to it."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(place.name)) == session:
                    found.append(int(place.name))
    return found
