"""CPU clocks read from /proc, on real processes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtest.bench.cpu import core_busy_s, cpu_s, process_tree


def test_own_cpu_time_agrees_with_the_process_clock() -> None:
    """Burning a little CPU moves the figure as it moves the process's own clock, up to two ticks."""
    before, started = cpu_s((os.getpid(),)), time.process_time()
    while time.process_time() - started < 0.1:
        sum(range(1000))
    assert cpu_s((os.getpid(),)) - before == pytest.approx(time.process_time() - started, abs=0.03)


def test_the_tree_holds_children_and_their_children() -> None:
    """A shell that waits for a sleeper: both are in this process's tree and in the shell's."""
    with subprocess.Popen(["sh", "-c", "sleep 30 & echo $!; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        sleeper = int(shell.stdout.readline())
        try:
            assert process_tree(shell.pid) == (shell.pid, sleeper)
            assert {shell.pid, sleeper} <= set(process_tree(os.getpid()))
        finally:
            os.kill(sleeper, 9)


def test_a_name_with_spaces_and_brackets_is_read(tmp_path: Path) -> None:
    """The second field of /proc/PID/stat may hold anything, `) (` too."""
    odd = tmp_path / "a) (b"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", odd)
    with subprocess.Popen([str(odd), "30"]) as process:
        try:
            assert process.pid in process_tree(os.getpid())
            assert cpu_s((process.pid,)) < 1
        finally:
            process.kill()


def test_a_process_that_is_gone_counts_nothing() -> None:
    """Neither in a tree nor in a sum."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert process_tree(process.pid) == ()
    assert cpu_s((process.pid,)) == 0


def test_a_core_is_busy_while_we_use_it() -> None:
    """What this process burns on a core shows on that core."""
    own = os.sched_getaffinity(0)
    core = min(own)
    os.sched_setaffinity(0, {core})
    try:
        before, started = core_busy_s(core), time.process_time()
        while time.process_time() - started < 0.1:
            sum(range(1000))
        assert core_busy_s(core) - before >= 0.06
    finally:
        os.sched_setaffinity(0, own)


def test_an_unknown_core_is_an_error() -> None:
    """Not a silent zero."""
    with pytest.raises(ValueError, match="no core 99999"):
        core_busy_s(99999)
