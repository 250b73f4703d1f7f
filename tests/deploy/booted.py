"""Boots a root with systemd as its first process, in namespaces and a control group of its own.

What a unit asks of systemd (system call filters, mounts, users) is then done, not only parsed.
"""

import os
import subprocess
import time
from pathlib import Path

from tests.deploy.asking import wait_for
from tests.deploy.enclosure import ended

_ENTER = 'echo $$ > "$0/cgroup.procs"; exec "$@"'

_BOOT = """
set -e
root=$1
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
hostname turnout
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=other \
    /usr/lib/systemd/systemd --log-target=journal --show-status=no --unit=basic.target
"""


def unified_hierarchy() -> Path | None:
    """Where control groups of version 2 are mounted, if they are."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next((Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2"), None)


class Booted:
    """A root that is up `with` it, to look at `unit`. Nobody else may use the root meanwhile."""

    def __init__(self, root: Path, unit: str, hierarchy: Path) -> None:
        self._root = root
        self._unit = unit
        self._group = hierarchy / f"turnout-{os.getpid()}"
        self._init = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Booted":
        self._group.mkdir()
        apart = [
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--fork",
            "--kill-child",
        ]
        boot = ["sh", "-c", _BOOT, "boot", str(self._root)]
        self._process = subprocess.Popen(["sh", "-c", _ENTER, str(self._group), *apart, *boot])
        wait_for(self._is_up, "systemd to answer")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        wait_for(self._groups_removed, "the control groups to be empty")

    def command(self, *words: str) -> list[str]:
        """The command line, for this machine, that becomes `words` in there, as root."""
        return ["nsenter", f"--target={self._init}", "--all", "--root", "--wd", *words]

    def run(self, *words: str, check: bool = True) -> str:
        """What it said; raises AssertionError with it if `check` and the exit code is not 0."""
        done = ended(self.command(*words))
        assert done.returncode == 0 or not check, f"{' '.join(words)}\n{done.stdout}"
        return done.stdout

    def ask(self, *words: str) -> str:
        """Run a program of this machine, in its own root, in the network of the booted one."""
        command = ["nsenter", f"--target={self._init}", "--net", *words]
        return subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE).stdout

    def shown(self, name: str) -> str:
        """A property of the unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", "--property", name, "--value", self._unit).strip()

    def journal(self) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={self._unit}")

    def _is_up(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "the root does not boot"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        self._init = int(children[0])
        return ended(self.command("systemctl", "show", "--property=Version")).returncode == 0

    def _groups_removed(self) -> bool:
        """Control groups go from the innermost outwards, once their processes are gone."""
        for folder, *_ in os.walk(self._group, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                time.sleep(0.05)
                return False
        return True
