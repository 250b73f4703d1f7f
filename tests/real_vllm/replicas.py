"""Real vLLM replicas as processes on loopback ports, started together and stopped by process id.

One thread each: two replicas must not fight over the cores, and equal prompts must give equal tokens.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.real_vllm.environment import DEFAULT_HOME, executable, ready

MODEL = "tiny"
CONTEXT_TOKENS = 4096

START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 15.0
PROGRESS_S = 10.0
POLL_S = 0.5

SETTINGS: Mapping[str, str] = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # left to itself, every replica binds to the same first core
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",  # nothing leaves this machine
    "DO_NOT_TRACK": "1",
}

Say = Callable[[str], None]


class ReplicaFailed(Exception):
    """A replica did not come up; the message ends with the last lines of its log."""


@dataclass(slots=True)
class Replica:
    """One `vllm serve` process, the leader of its own process group."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def healthy(self) -> bool:
        """`/health` answers 200. Raises `ReplicaFailed` when the process is gone."""
        if self.process.poll() is not None:
            raise ReplicaFailed(f"vLLM ended with {self.process.returncode}:\n{tail(self.log)}")
        try:
            return httpx.get(f"{self.url}/health", timeout=2.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), as an orchestrator does; returns at once."""
        if self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        """End the server and its engine processes without notice (SIGKILL): what a lost node looks like."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, time to leave, then SIGKILL for whatever of its group is left."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        self.kill()


def missing(home: Path = DEFAULT_HOME) -> str | None:
    """Why no replica can be started here, or None."""
    if not ready(home):
        return f"no vLLM in {home}; `make test-real-vllm` makes it"
    return None


def model_folder(home: Path = DEFAULT_HOME) -> Path:
    """The tiny model beside the environment, made on first use. Raises `ReplicaFailed`."""
    folder = home / "models" / MODEL
    if folder.is_dir():  # it appears by a rename, complete
        return folder
    script = Path(__file__).with_name("model.py")
    command = [str(executable(home, "python")), str(script), "--into", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if result.returncode != 0:
        raise ReplicaFailed(f"the model could not be made:\n{result.stderr[-2000:]}")
    return folder


def start(
    logs: Path,
    name: str,
    options: Sequence[str] = (),
    settings: Iterable[tuple[str, str]] = (),
    *,
    home: Path = DEFAULT_HOME,
) -> Replica:
    """Start one replica and return at once; `wait` tells when it serves.

    `options` are more arguments, `settings` more environment. The model is named by a relative path,
    because `/v1/models` shows that path as `root`.
    """
    folder = model_folder(home)
    port = free_port()
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [executable(home, "vllm"), "serve", folder.name, *_arguments(port), *options],
            cwd=folder.parent,
            env={**os.environ, **SETTINGS, **dict(settings)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Replica(port, log, process)


def _arguments(port: int) -> list[str]:
    return [
        *("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(CONTEXT_TOKENS), "--enforce-eager", "--dtype", "float32"),
        *("--enable-prompt-tokens-details", "--enable-request-id-headers"),
    ]


def wait(replicas: Sequence[Replica], say: Say) -> None:
    """Until all serve; about 45 s for one on two cores. Raises `ReplicaFailed`."""
    started = said_at = time.monotonic()
    while unready := [replica for replica in replicas if not replica.healthy()]:
        now = time.monotonic()
        if now - started > START_TIMEOUT_S:
            raise ReplicaFailed(f"not ready after {START_TIMEOUT_S:.0f} s:\n{tail(unready[0].log)}")
        if now - said_at >= PROGRESS_S:
            said_at = now
            say(f"vLLM: {len(replicas) - len(unready)} of {len(replicas)} ready after {now - started:.0f} s")
        time.sleep(POLL_S)
    say(f"vLLM: {len(replicas)} ready after {time.monotonic() - started:.0f} s")


@contextlib.contextmanager
def running(
    count: int, say: Say = print, options: Sequence[str] = (), *, home: Path = DEFAULT_HOME
) -> Iterator[tuple[Replica, ...]]:
    """`count` equal replicas that serve, stopped at the end whatever happens."""
    with contextlib.ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="real-vllm-")))
        replicas = []
        for number in range(count):
            replicas.append(start(logs, f"replica-{number}", options, home=home))
            stack.callback(replicas[-1].stop)
        wait(replicas, say)
        yield tuple(replicas)


def free_port() -> int:
    """A loopback port that was free a moment ago: vLLM cannot be handed a bound socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
