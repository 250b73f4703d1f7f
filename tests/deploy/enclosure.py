"""Processes in a root of their own: what a container does, with `unshare` and `chroot` alone.

Every mount is made in a mount namespace that ends with the process, so that a root is never more than
plain files to whoever deletes it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of the official Python images."""

_MOUNT = """
set -e
root=$1 mode=$2; shift 2
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
while [ "$1" != -- ]; do
    if [ -f "$1" ]; then mkdir -p "$(dirname "$root$2")"; touch "$root$2"; else mkdir -p "$root$2"; fi
    if [ "$1" = empty ]; then
        mount -t tmpfs -o mode=1777 tmpfs "$root$2"
    else
        mount --bind "$1" "$root$2"
        mount -o remount,bind,ro "$root$2"
    fi
    shift 2
done
shift
mount -o "remount,bind,$mode" "$root"
exec chroot "$root" "$@"
"""

_UNPRIVILEGED = (
    "setpriv", "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all",
    "--bounding-set=-all",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Enclosure:
    """One process's world. `binds` are mounted read-only: path outside to path inside.

    `user` is `UID:GID`; with it the process has no capability and the root is read-only but for the
    folders `writable`, which begin empty. Without `network` it reaches nothing, not even itself.
    """

    root: Path
    environ: Mapping[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    folder: str = "/"
    binds: Mapping[Path, str] = field(default_factory=dict)
    user: str = ""
    writable: tuple[str, ...] = ()
    network: bool = True

    def command(self, *words: str) -> list[str]:
        """The command line, for this machine, that becomes `words` in there: all of it is one process."""
        uid, _, gid = self.user.partition(":")
        guard = (*_UNPRIVILEGED, f"--reuid={uid}", f"--regid={gid}") if self.user else ()
        mounts = [part for outside, inside in self.binds.items() for part in (str(outside), inside)]
        mounts += [part for folder in self.writable for part in ("empty", folder)]
        environ = [f"{name}={value}" for name, value in self.environ.items()]
        inside = ["/usr/bin/env", "-i", f"--chdir={self.folder}", *environ, *guard, *words]
        mode = "ro" if self.user else "rw"
        apart = ["unshare", "--mount", *([] if self.network else ["--net"])]
        return [*apart, "sh", "-c", _MOUNT, "enclosure", str(self.root), mode, *mounts, "--", *inside]

    def run(self, *words: str) -> str:
        """Run to the end. Returns what was said; raises AssertionError with it if the exit code is not 0."""
        done = ended(self.command(*words))
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}"
        return done.stdout


def ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A command of this machine, run to its end; what it said to either output is its `stdout`."""
    return subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=800
    )


def missing_tools() -> str:
    """Why no root can be made here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root, to change the root directory"
    absent = [tool for tool in ("debootstrap", "unshare", "chroot", "setpriv") if shutil.which(tool) is None]
    return f"needs {' and '.join(absent)}" if absent else ""


def python_base(suite: str, into: Path) -> None:
    """Debian with its own Python, and `python` and `pip` in /usr/local as the official images have them."""
    making = ["debootstrap", "--variant=minbase", "--include=python3-venv,ca-certificates", suite, str(into)]
    done = ended(["unshare", "--mount", *making])
    assert done.returncode == 0, done.stdout
    Enclosure(into).run("python3", "-m", "venv", "/usr/local")


def with_packages(base: Path, into: Path, script: str) -> None:
    """A copy of `base` in which a shell script was run that may ask Debian's archive for packages."""
    copy_root(base, into)
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    environ = {"PATH": BASE_PATH, "DEBIAN_FRONTEND": "noninteractive", **proxies}
    binds = {Path("/etc/resolv.conf"): "/etc/resolv.conf"}
    Enclosure(into, environ, binds=binds).run("sh", "-ec", script)


def copy_root(root: Path, into: Path) -> None:
    subprocess.run(["cp", "--archive", "--reflink=auto", str(root), str(into)], check=True)


def index_access() -> tuple[dict[str, str], dict[Path, str]]:
    """How pip reaches the package index from this machine, as environment and binds for an enclosure."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], text=True, check=True, stdout=subprocess.PIPE
    ).stdout
    settings = re.findall(r"^(?::env:|global|install|download)\.([\w-]+)='(.*)'$", told, re.MULTILINE)
    environ = {f"PIP_{name.replace('-', '_').upper()}": value for name, value in settings}
    environ |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    binds = {}
    for value in environ.values():
        for scheme, path in re.findall(r"(?:^|\s)(file://)?(/\S+)", value):
            # A local index keeps its files beside its pages.
            binds[Path(path).parent if scheme else Path(path)] = path.rpartition("/")[0] if scheme else path
    binds[Path("/etc/resolv.conf")] = "/etc/resolv.conf"
    return environ, {path: inside for path, inside in binds.items() if path.exists()}
