"""A process that would take a whole core, with a share of one; where control groups can be made."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.bench.processes import StartError
from loadtest.real_vllm.quota import limited, processes_of

BUSY = "import os\nos.fork()\nwhile True: pass"


@contextlib.contextmanager
def busy() -> Iterator[int]:
    """A session of two processes that never rest."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True)
    try:
        while len(processes_of(process.pid)) < 2:
            time.sleep(0.01)
        yield process.pid
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def cpu_s(session: int) -> float:
    """Of all its processes, so far."""
    ticks = 0
    for process in processes_of(session):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_session_gets_its_share() -> None:
    """A tenth of a core for both together, however much there is; and no more groups than before, at the end."""
    with busy() as session:
        try:
            with limited([session], 0.1):
                began, used = time.monotonic(), cpu_s(session)
                while time.monotonic() - began < 1.5:
                    time.sleep(0.05)
                share = (cpu_s(session) - used) / (time.monotonic() - began)
        except StartError:
            pytest.skip("control groups cannot be made here")
    assert share < 0.25
    assert not list(Path("/sys/fs/cgroup").glob(f"**/turnout-replica-{session}"))


def test_where_no_group_can_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("loadtest.real_vllm.quota._ROOTS", (tmp_path / "nowhere",))
    with pytest.raises(StartError, match="--cores-each needs control groups"), limited([1], 0.5):
        pass
