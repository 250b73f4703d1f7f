"""CPU time of process trees and cores, from /proc (proc(5)); seconds, in steps of one clock tick (10 ms)."""

import os
from pathlib import Path

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _stat_fields(pid: int) -> list[str]:
    """Fields 3 and following of /proc/PID/stat: the name in field 2 may hold spaces and brackets."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def process_tree(root: int) -> tuple[int, ...]:
    """The process and all its descendants that are alive now; empty when it is gone."""
    parents: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat_fields(int(entry.name))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    tree = [root] if root in parents else []
    for member in tree:
        tree += [pid for pid, parent in parents.items() if parent == member]
    return tuple(tree)


def cpu_s(pids: tuple[int, ...]) -> float:
    """User and system time of these processes, all threads; one that has ended counts nothing."""
    ticks = 0
    for pid in pids:
        try:
            fields = _stat_fields(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks * _TICK_S


def core_busy_s(core: int) -> float:
    """Time the core was not idle or waiting for a disk, whoever used it, with what the host took away."""
    for line in (_PROC / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) * _TICK_S
    raise ValueError(f"there is no core {core}")
