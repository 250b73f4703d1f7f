"""A virtual environment for clients that are too heavy to be test dependencies, made once and kept.

Run it from the repository's root: `python -m tests.clients.environment --into .venv-clients`. A stamp file is
written last, so a half-made environment is finished by the next run and a finished one costs a moment.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.real_vllm.environment import REPOSITORY, EnvironmentFailed, create, executable, run_pip

PACKAGES: Mapping[str, str] = {"guidellm": "0.8.1", "litellm": "1.106.2"}
"""The releases that the tests were written against."""
TORCH = "torch==2.13.0+cpu"
"""guidellm loads its data with torch. This build has a tenth of the size of the one on the Python index."""

DEFAULT_HOME = REPOSITORY / ".venv-clients"

Say = Callable[[str], None]


def stamp(home: Path) -> Path:
    return home / f".ready-{'-'.join(f'{name}-{version}' for name, version in PACKAGES.items())}"


def missing(home: Path = DEFAULT_HOME) -> str | None:
    """Why these clients cannot be run here, or None."""
    if stamp(home).is_file() and executable(home, "guidellm").is_file():
        return None
    return f"no clients in {home}; `make test-clients` makes it"


def make(home: Path, say: Say) -> None:
    """Do what is still missing. Raises `EnvironmentFailed`."""
    if missing(home) is None:
        say(f"the clients are ready in {home}")
        return
    steps: tuple[tuple[str, Callable[[Path, Say], None]], ...] = (
        ("virtual environment", create),
        ("torch for the CPU", install_torch),
        (", ".join(f"{name} {version}" for name, version in PACKAGES.items()), install),
        ("`guidellm --version`", verify),
    )
    started = time.monotonic()
    for number, (title, step) in enumerate(steps, 1):
        say(f"[{number}/{len(steps)}] {title}")
        step(home, say)
    stamp(home).touch()
    say(f"the clients are ready in {home} ({time.monotonic() - started:.0f} s)")


def install_torch(home: Path, say: Say) -> None:
    """Where pip does not find the small build, guidellm brings the large one."""
    try:
        run_pip(home, say, "install", "--progress-bar", "off", TORCH)
    except EnvironmentFailed:
        say(f"      pip does not find {TORCH}: the build for CUDA will come instead, 5 GB")


def install(home: Path, say: Say) -> None:
    pinned = [f"{name}=={version}" for name, version in PACKAGES.items()]
    run_pip(home, say, "install", "--progress-bar", "off", *pinned)


def verify(home: Path, _say: Say) -> None:
    """The command starts and tells the version that was asked for; the first start compiles bytecode."""
    command = [str(executable(home, "guidellm")), "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if result.returncode != 0 or PACKAGES["guidellm"] not in result.stdout:
        raise EnvironmentFailed(f"`guidellm --version` failed:\n{result.stdout}{result.stderr}")


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
