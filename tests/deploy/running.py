"""Runs the services of compose.yaml in the roots of their images, and reports what a client sees.

    unshare --net --pid --mount-proc --fork --kill-child python -m tests.deploy.running IMAGES.json

It needs a network namespace of its own, since every service has its fixed port. There each engine gets
an address of 127.0.0.0/8 for its name; that address stands for 0.0.0.0 and 127.0.0.1 of its container.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.deploy.asking import PUBLIC, Answers, Completion, Streamed, ask, get, wait_for
from tests.deploy.composition import DEPLOY, Service, services
from tests.deploy.enclosure import Enclosure, ended
from tests.deploy.image import Image, load_images

TOKEN = "not-much-of-a-secret"
PROMETHEUS = 9090
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


@dataclass(frozen=True, slots=True)
class Drained:
    """What SIGTERM led to, with a stream open that outlasts settling."""

    ready: int
    stream: Streamed
    exit_code: int
    seconds_to_exit: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What was seen. `process` is of /proc/PID/status, `targets` and `rules` are Prometheus's health of them."""

    version: str
    healthy_before_start: bool
    seconds_to_healthy: float
    process: Mapping[str, str]
    root_is_read_only: bool
    answers: Answers
    replicas: Sequence[str]
    targets: Sequence[str]
    rules: Mapping[str, str]
    drained: Drained
    down_alert: str


class Fleet:
    """The services as processes; `with` it they live."""

    def __init__(self, images: Mapping[str, Image], folder: Path) -> None:
        self._images = images
        self._folder = folder
        self._services = services()
        engines = [name for name, service in self._services.items() if service.command[:1] == ("engine",)]
        self._addresses = {name: f"127.0.1.{number}" for number, name in enumerate(engines, 1)}
        self._started: list[subprocess.Popen[bytes]] = []
        hosts = {"localhost": "127.0.0.1", "turnout": "127.0.0.1", **self._addresses}
        lines = [f"{address} {name}\n" for name, address in hosts.items()]
        (folder / "hosts").write_text("".join(lines))
        (folder / "admin-token").write_text(f"{TOKEN}\n")

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a service and wait until its health check says so."""
        image = self._image(name)
        command = self._command(name, *image.entrypoint, *(self._services[name].command or image.command))
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self._started.append(process)
        wait_for(lambda: process.poll() is not None or self.healthy(name), f"{name} to be healthy")
        assert process.poll() is None, log.read_text()
        return process

    def start_engines(self) -> None:
        for name in self._addresses:
            self.start(name)

    def healthy(self, name: str) -> bool:
        """What the health check of compose.yaml says, or of the image."""
        command = self._command(name, *(self._services[name].healthcheck or self._image(name).healthcheck))
        return ended(command).returncode == 0

    def said(self, name: str, *words: str) -> str:
        """What a command says in the container of a service, whatever its exit code."""
        return ended(self._command(name, *words)).stdout

    def _image(self, name: str) -> Image:
        return self._images[self._services[name].image]

    def _command(self, name: str, *words: str) -> list[str]:
        address = self._addresses.get(name, "")
        if address:
            words = tuple(word.replace("0.0.0.0", address).replace("127.0.0.1", address) for word in words)
        service, image = self._services[name], self._image(name)
        binds = {**self._files(service), self._folder / "hosts": "/etc/hosts"}
        return Enclosure(
            image.root, image.environ, image.folder, binds, image.user, writable=service.volumes
        ).command(*words)

    def _files(self, service: Service) -> dict[Path, str]:
        """The secret is made up; it is in no repository."""
        secret = (DEPLOY / "secrets" / "admin-token").resolve()
        return {
            self._folder / "admin-token" if path == secret else path: inside
            for path, inside in service.files.items()
        }


def find_out(images: Mapping[str, Image], folder: Path) -> Findings:
    with Fleet(images, folder) as fleet:
        before = fleet.healthy("turnout")
        fleet.start_engines()
        begin = time.monotonic()
        router = fleet.start("turnout")
        seconds_to_healthy = time.monotonic() - begin
        fleet.start("prometheus")
        return Findings(
            version=fleet.said("turnout", "turnout", "--version").strip(),
            healthy_before_start=before,
            seconds_to_healthy=seconds_to_healthy,
            process=_status_of(router.pid),
            root_is_read_only="Read-only file system" in fleet.said("turnout", "touch", "/tmp/x"),
            answers=ask(TOKEN),
            replicas=sorted({Completion(max_tokens=2, session=f"s{n}").read().replica for n in range(40)}),
            targets=_targets(),
            rules={rule["name"]: rule["health"] for rule in _rules()},
            drained=_drained(router),
            down_alert=_state_once_seen("TurnoutDown"),
        )


def _drained(router: subprocess.Popen[bytes]) -> Drained:
    stream = _long_stream()
    router.terminate()
    told = time.monotonic()
    wait_for(lambda: get(PUBLIC, "/readyz")[0] != 200, "the router not to be ready")
    ready = get(PUBLIC, "/readyz")[0]
    return Drained(
        ready=ready,
        stream=stream.read(),
        exit_code=router.wait(60),
        seconds_to_exit=time.monotonic() - told,
    )


def _long_stream() -> Completion:
    """Some fifteen seconds, on an engine that goes on past the end of a sentence: vLLM, not TGI."""
    for number in range(100):
        completion = Completion(max_tokens=2500, session=f"long-{number}")
        if completion.replica != "gpu-3":
            return completion
    raise AssertionError("every session is on gpu-3")


def _prometheus(path: str) -> Any:
    status, text = get(PROMETHEUS, f"/api/v1/{path}")
    return json.loads(text)["data"] if status == 200 else {}


def _targets() -> list[str]:
    def health() -> list[str]:
        return [target["health"] for target in _prometheus("targets").get("activeTargets", [])]

    wait_for(lambda: "unknown" not in health() != [], "the first scrape")
    return health()


def _rules() -> list[dict[str, Any]]:
    """Once each has been evaluated."""

    def rules() -> list[dict[str, Any]]:
        return [rule for group in _prometheus("rules").get("groups", []) for rule in group["rules"]]

    wait_for(lambda: bool(rules()) and all(rule["health"] != "unknown" for rule in rules()), "the rules")
    return rules()


def _state_once_seen(alert: str) -> str:
    def state() -> str:
        return next(str(rule["state"]) for rule in _rules() if rule["name"] == alert)

    wait_for(lambda: state() != "inactive", alert)
    return state()


def _status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.partition(":") for line in lines)
    wanted = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "VmRSS")
    return {name: value.strip() for name, _, value in pairs if name in wanted}


def _loopback_up() -> None:
    """A fresh network namespace has it, but down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack("16xh14x", answer)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def main(images: Path) -> None:
    _loopback_up()
    with tempfile.TemporaryDirectory() as folder:
        # The containers' users look up the files that are mounted from here.
        Path(folder).chmod(0o755)
        print(json.dumps(asdict(find_out(load_images(images), Path(folder)))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
