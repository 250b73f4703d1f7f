"""The peers' environment, with a pip that only pretends."""

import subprocess
from pathlib import Path

from loadtest.bench.peers import PEERS, ensure_peers


class PretendedPip:
    """Notes the commands; leaves behind what `venv` and `pip install` would, or fails for some packages."""

    def __init__(self, folder: Path, refuses: str = "none") -> None:
        self.folder = folder
        self.refuses = refuses
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str]) -> None:
        self.commands.append(command)
        if "venv" in command:
            (self.folder / "bin").mkdir(parents=True)
            (self.folder / "bin" / "python").touch()
            return
        name, _, version = command[-1].partition("==")
        if name.startswith(self.refuses):
            said = "Looking for it\nERROR: No matching distribution found for it\nWARNING: pip is old\n"
            raise subprocess.CalledProcessError(1, command, output=said)
        package = name.partition("[")[0].replace("-", "_")
        (self.folder / "lib/python3.11/site-packages" / f"{package}-{version}.dist-info").mkdir(parents=True)


def test_what_is_missing_is_installed_once(tmp_path: Path) -> None:
    """One environment, one pinned requirement a package; a second call does nothing."""
    folder = tmp_path / "peers"
    pip = PretendedPip(folder)
    assert ensure_peers(folder, ["vllm-router", "sglang-router"], pip) == {}
    pins = [PEERS[name].requirement for name in ("vllm-router", "sglang-router")]
    assert [command[-1] for command in pip.commands[1:]] == pins
    assert ensure_peers(folder, ["vllm-router", "sglang-router"], pip) == {}
    assert len(pip.commands) == 3


def test_another_version_is_replaced(tmp_path: Path) -> None:
    """Only the pinned version counts as installed."""
    (tmp_path / "lib/python3.11/site-packages/vllm_router-0.0.1.dist-info").mkdir(parents=True)
    pip = PretendedPip(tmp_path)
    ensure_peers(tmp_path, ["vllm-router"], pip)
    assert pip.commands[-1][-1] == PEERS["vllm-router"].requirement


def test_a_package_that_cannot_be_installed_costs_only_itself(tmp_path: Path) -> None:
    """The reason is pip's own error in one line, and the next package is still tried."""
    folder = tmp_path / "peers"
    refused = ensure_peers(folder, ["vllm-router", "sglang-router"], PretendedPip(folder, refuses="vllm"))
    assert list(refused) == ["vllm-router"]
    assert refused["vllm-router"].endswith("ERROR: No matching distribution found for it")


def test_an_environment_that_cannot_be_made_is_a_reason_too(tmp_path: Path) -> None:
    """A missing interpreter ends no run."""

    def broken(command: list[str]) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    assert "No such file" in ensure_peers(tmp_path / "peers", ["litellm"], broken)["litellm"]
