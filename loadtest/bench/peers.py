"""The routers that Turnout is measured beside, in an environment of their own with pinned versions.

What is there already stays; what cannot be installed is reported, and its candidates are left out.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import click


@dataclass(frozen=True, slots=True)
class Peer:
    """A package of the index; `extra` names its optional dependencies."""

    package: str
    version: str
    extra: str = ""

    @property
    def requirement(self) -> str:
        return f"{self.package}{self.extra}=={self.version}"


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        peer.package: peer
        for peer in (
            Peer("vllm-router", "0.1.17"),
            Peer("sglang-router", "0.3.2"),
            Peer("litellm", "1.106.2", "[proxy]"),
        )
    }
)

peers_dir_option = click.option(
    "--peers-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".venv-peers"),
    show_default=True,
    help="The environment of the peers' packages; made when absent.",
)

Run = Callable[[list[str]], None]


def run_quietly(command: list[str]) -> None:
    """Raises CalledProcessError with what the command said."""
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def is_installed(folder: Path, peer: Peer) -> bool:
    """Whether this very version is in the environment; a broken installation is for its start to find."""
    name = f"{peer.package.replace('-', '_')}-{peer.version}.dist-info"
    return any(folder.glob(f"lib/python*/site-packages/{name}"))


def ensure_peers(folder: Path, packages: Iterable[str], run: Run = run_quietly) -> dict[str, str]:
    """Makes the environment and installs what is missing; returns why, for each package that could not be."""
    refused: dict[str, str] = {}
    for peer in (PEERS[package] for package in packages):
        if is_installed(folder, peer):
            continue
        try:
            if not (folder / "bin" / "python").exists():
                run([sys.executable, "-m", "venv", str(folder)])
            run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", peer.requirement])
        except subprocess.CalledProcessError as error:
            refused[peer.package] = f"{peer.requirement} cannot be installed: {_last_error(error.stdout)}"
        except OSError as error:
            refused[peer.package] = f"{peer.requirement} cannot be installed: {error}"
    return refused


def _last_error(said: str | None) -> str:
    lines = [line.strip() for line in (said or "").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no output"])[-1]
