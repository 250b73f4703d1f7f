"""`deploy/turnout.service`: what systemd makes of it, read, judged and, in a slow test, really done."""

import json
import re
import resource
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.config.model import Config
from tests.deploy.booted import Booted, unified_hierarchy
from tests.deploy.build_context import REPOSITORY, context_files
from tests.deploy.composition import DEPLOY
from tests.deploy.enclosure import BASE_PATH, Enclosure, ended, index_access, with_packages
from tests.deploy.test_compose import LAST_WORDS_S, parsed

UNIT = DEPLOY / "turnout.service"
MOST_EXPOSED = 1.5
"""On the scale of `systemd-analyze security`, from 0, confined, to 10; a service without any of it has 9.6."""

_PACKAGES = """
apt-get update --quiet --quiet
apt-get install --quiet --quiet --yes --no-install-recommends systemd systemd-sysv dbus
"""


def settings() -> dict[str, list[str]]:
    """Values by name; systemd lets some names stand several times."""
    values: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        values.setdefault(name, []).append(value)
    return values


def analyzed(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze` of the unit, with a program in place of the one that is not installed here."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/turnout/bin/turnout", "/bin/true"))
    return ended([tool, *words, str(unit)])


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing at all."""
    done = analyzed(tmp_path, "verify")
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_confined(tmp_path: Path) -> None:
    """`systemd-analyze security` finds next to nothing left to take away."""
    done = analyzed(tmp_path, "security", "--offline=true")
    level = re.search(r"Overall exposure level for turnout.service: ([\d.]+)", done.stdout)
    assert level, done.stdout
    assert float(level[1]) <= MOST_EXPOSED


def test_the_command_line_accepts_its_commands() -> None:
    """What is checked before the start is what is served."""
    before, start = (shlex.split(settings()[name][0])[1:] for name in ("ExecStartPre", "ExecStart"))
    assert parsed(tuple(before)).params["path"] == parsed(tuple(start)).params["path"]
    assert (before[0], start[0]) == ("check", "serve")


def test_it_is_not_killed_before_it_has_drained(config: Config) -> None:
    """TimeoutStopSec is longer than settling, draining and the last words, after the signal that begins them."""
    timeout = float(settings()["TimeoutStopSec"][0])
    assert timeout >= config.server.settle_s + config.server.drain_timeout_s + LAST_WORDS_S
    assert settings()["KillSignal"] == ["SIGTERM"]


def test_it_comes_back_after_a_failure_and_not_after_a_mistake() -> None:
    """Exit code 2 is a bad configuration; other failures are tried again, and not for ever."""
    assert settings()["Restart"] == ["on-failure"]
    assert settings()["RestartPreventExitStatus"] == ["2"]
    restarts = int(settings()["StartLimitBurst"][0]) * float(settings()["RestartSec"][0])
    assert float(settings()["StartLimitIntervalSec"][0]) > restarts


def installation() -> list[str]:
    """The commands of README.md, a line each."""
    text = (DEPLOY / "README.md").read_text()
    block = re.search(r"```sh\n(python3 -m venv .*?)```", text, re.DOTALL)
    assert block
    return block[1].splitlines()


@pytest.fixture(scope="module")
def host(base: Path, roots: Path) -> Path:
    """A host on which those commands have been run, beside a copy of the sources, but for `systemctl`."""
    root = roots / "host"
    with_packages(base, root, _PACKAGES)
    for path in (*context_files(), *(path.relative_to(REPOSITORY) for path in DEPLOY.glob("turnout.*"))):
        (root / "srv" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, root / "srv" / path)
    commands = [line for line in installation() if not line.startswith("systemctl ")]
    access, binds = index_access()
    begin = time.monotonic()
    inside = Enclosure(root, {**access, "PATH": BASE_PATH}, "/srv", binds)
    inside.run("sh", "-euxc", "\n".join(commands))
    print(f"installed in {time.monotonic() - begin:.0f} s")
    hosts = "127.0.0.1 localhost\n127.0.1.1 gpu-1\n127.0.1.2 gpu-2\n127.0.1.3 gpu-3\n"
    (root / "etc/hosts").write_text(hosts)
    return root


@pytest.fixture(scope="module")
def booted(host: Path) -> Iterator[Booted]:
    """That host, up, with the rest of the commands done."""
    hierarchy = unified_hierarchy()
    if hierarchy is None:
        pytest.skip("needs control groups of version 2")
    with Booted(host, UNIT.name, hierarchy) as running:
        for line in installation():
            if line.startswith("systemctl "):
                running.run(*shlex.split(line))
        yield running


@pytest.fixture(scope="module")
def engine(booted: Booted) -> Iterator[None]:
    command = ["/opt/turnout/bin/turnout", "engine", "vllm", "--host", "127.0.1.1", "--model", "demo-8b"]
    process = subprocess.Popen(booted.command(*command), stdout=subprocess.DEVNULL)
    yield
    process.kill()
    process.wait()


def status(booted: Booted) -> dict[str, str]:
    """/proc/PID/status of the router."""
    lines = booted.run("cat", f"/proc/{booted.shown('MainPID')}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def answers(booted: Booted) -> dict[str, Any]:
    """`asking.Answers` of a client on that host."""
    token = booted.run("cat", "/etc/turnout/admin-token").strip()
    said: dict[str, Any] = json.loads(booted.ask(sys.executable, "-m", "tests.deploy.asking", token))
    return said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_installed_as_the_readme_says_it_starts_with_the_host(host: Path, booted: Booted) -> None:
    """The unit is enabled and up, and what it reads is its group's to read and nobody's to write."""
    assert (booted.shown("UnitFileState"), booted.shown("ActiveState")) == ("enabled", "active")
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in (host / "etc/turnout").iterdir()}
    assert modes == {"turnout.toml": "-rw-r-----", "admin-token": "-rw-r-----"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_under_systemd_it_serves_restarts_and_drains(booted: Booted, engine: None) -> None:
    """With all of the unit in force: a stream, its privileges, a start after a crash, and a stop that settles."""
    first = answers(booted)
    assert (first["live"], first["stream"]["done"], first["metrics_with_token"]) == (200, True, 200)

    process = status(booted)
    print({name: process[name] for name in ("Uid", "CapEff", "NoNewPrivs", "Seccomp", "VmRSS")})
    assert process["Uid"].split() == [booted.run("id", "-u", "turnout").strip()] * 4
    assert {process["CapEff"], process["CapBnd"]} == {"0" * 16}
    assert (process["NoNewPrivs"], process["Seccomp"]) == ("1", "2")
    limit = min(int(settings()["LimitNOFILE"][0]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert f"Max open files            {limit} " in booted.run(
        "cat", f"/proc/{booted.shown('MainPID')}/limits"
    )

    booted.run("systemctl", "kill", "--signal=SIGKILL", UNIT.name)
    assert answers(booted)["stream"]["done"]
    assert booted.shown("NRestarts") == "1"

    begin = time.monotonic()
    booted.run("systemctl", "stop", UNIT.name)
    assert time.monotonic() - begin >= 10
    assert (booted.shown("Result"), booted.shown("ActiveState")) == ("success", "inactive")
    assert "draining: not ready for 10 s" in booted.journal()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_under_systemd_a_mistake_is_told_and_not_served(booted: Booted) -> None:
    """`turnout check` refuses the start, and the journal has the line at fault."""
    booted.run("systemctl", "stop", UNIT.name)
    booted.run("sed", "--in-place", "s/^policy = .*/policy = 'nonsense'/", "/etc/turnout/turnout.toml")
    booted.run("systemctl", "start", UNIT.name, check=False)
    assert booted.shown("ExecMainStartTimestamp") == "" or booted.shown("MainPID") == "0"
    assert re.search(r"/etc/turnout/turnout.toml:\d+: models.demo-8b.policy: ", booted.journal())
    booted.run("systemctl", "stop", UNIT.name)
