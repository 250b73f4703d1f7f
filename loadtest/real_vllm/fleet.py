"""Real vLLM replicas as processes on loopback ports: started together, asked, flushed, stopped.

One thread each, so that they do not fight over the cores.
"""

import contextlib
import http.client
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from loadtest.bench.processes import StartError, ask, free_ports, stop
from loadtest.real_vllm.figures import Counters, counters_from
from loadtest.real_vllm.model import CONTEXT_TOKENS
from loadtest.real_vllm.quota import limited

_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "VLLM_SERVER_DEV_MODE": "1",  # serves /reset_prefix_cache
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the number of blocks is given beside it
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # left to itself, every replica binds to the same first core
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",  # nothing leaves this machine
        "DO_NOT_TRACK": "1",
    }
)
_START_TIMEOUT_S = 600.0
_STOP_S = 15.0
_POLL_S = 0.5
_IDLE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """`blocks` of `block_tokens` are what one replica's cache holds."""

    vllm: Path
    """The executable."""
    model: Path
    replicas: int = 4
    block_tokens: int = 32
    """The smallest that vLLM's attention on the CPU takes."""
    blocks: int = 350
    cores_each: float | None = None
    """What a replica may use; None: whatever the others leave. See `quota`."""

    def command(self, port: int) -> list[str]:
        return [
            *(str(self.vllm.absolute()), "serve", str(self.model.absolute()), "--load-format", "dummy"),
            *("--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)),
            *("--max-model-len", str(CONTEXT_TOKENS), "--enforce-eager", "--dtype", "float32"),
            *("--block-size", str(self.block_tokens), "--num-gpu-blocks-override", str(self.blocks)),
            *("--enable-prompt-tokens-details", "--uvicorn-log-level", "warning"),
        ]


@contextlib.contextmanager
def fleet_running(fleet: Fleet, tell: Callable[[str], None]) -> Iterator[list[int]]:
    """The ports of replicas that serve. Raises StartError."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="turnout-vllm-")))
        ports = free_ports(fleet.replicas)
        began = time.monotonic()
        started = {port: _start(fleet, port, folder, stack) for port in ports}
        waiting = dict(started)
        while waiting:
            for port in [port for port, process in waiting.items() if _serves(port, process, folder)]:
                del waiting[port]
            seconds = time.monotonic() - began
            tell(f"vLLM: {fleet.replicas - len(waiting)} of {fleet.replicas} ready after {seconds:.0f} s")
            if waiting and seconds > _START_TIMEOUT_S:
                raise StartError(f"not ready after {seconds:.0f} s:\n{_tail(folder, min(waiting))}")
            time.sleep(_POLL_S)
        if fleet.cores_each is not None:
            stack.enter_context(limited([process.pid for process in started.values()], fleet.cores_each))
        yield ports


def _start(fleet: Fleet, port: int, folder: Path, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    try:
        with _log(folder, port).open("wb") as out:
            process = subprocess.Popen(
                fleet.command(port),
                env=os.environ | _SETTINGS,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
    except OSError as error:
        raise StartError(f"{fleet.vllm}: {error.strerror}") from error
    stack.callback(stop, process, _STOP_S)
    return process


def _serves(port: int, process: subprocess.Popen[bytes], folder: Path) -> bool:
    if process.poll() is not None:
        raise StartError(f"vLLM ended with {process.returncode}:\n{_tail(folder, port)}")
    try:
        return ask(port, "GET", "/health")[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def _log(folder: Path, port: int) -> Path:
    return folder / f"{port}.log"


def _tail(folder: Path, port: int, lines: int = 25) -> str:
    return "\n".join(_log(folder, port).read_text(errors="replace").splitlines()[-lines:])


def counters(ports: Sequence[int]) -> list[Counters]:
    """Every replica's, as they are now."""
    return [counters_from(ask(port, "GET", "/metrics")[1]) for port in ports]


def flush(ports: Sequence[int]) -> None:
    """Empty every replica's cache, as soon as it holds no request. Raises TimeoutError."""
    deadline = time.monotonic() + _IDLE_TIMEOUT_S
    for port in ports:
        while not json.loads(ask(port, "POST", "/reset_prefix_cache")[1])["success"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the replica on port {port} does not empty its cache")
            time.sleep(_POLL_S)
