"""Making the clients' environment, as far as it can be told without the 2 GB."""

from pathlib import Path

import pytest

from tests.clients import environment
from tests.clients.environment import install_torch, make, missing, stamp, verify
from tests.real_vllm.environment import EnvironmentFailed, executable


def command(home: Path, script: str) -> None:
    """A `guidellm` that is a shell script."""
    executable(home, "guidellm").parent.mkdir()
    executable(home, "guidellm").write_text(f"#!/bin/sh\n{script}\n")
    executable(home, "guidellm").chmod(0o755)


def test_a_finished_environment_is_left_alone(tmp_path: Path) -> None:
    """With the stamp and the command in place nothing is run, and one line says so."""
    assert missing(tmp_path) == f"no clients in {tmp_path}; `make test-clients` makes it"
    command(tmp_path, "exit 1")
    stamp(tmp_path).touch()
    said: list[str] = []
    make(tmp_path, said.append)
    assert said == [f"the clients are ready in {tmp_path}"]


def test_another_release_is_not_taken_for_this_one(tmp_path: Path) -> None:
    command(tmp_path, "echo guidellm version: 0.0.1")
    with pytest.raises(EnvironmentFailed, match=r"0\.0\.1"):
        verify(tmp_path, print)
    (tmp_path / ".ready-guidellm-0.0.1-litellm-0.0.1").touch()
    assert missing(tmp_path)


def test_without_the_small_torch_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that has only the large build is no obstacle, but it is said."""

    def no_such_package(*_: object) -> None:
        raise EnvironmentFailed("No matching distribution found for torch")

    monkeypatch.setattr(environment, "run_pip", no_such_package)
    said: list[str] = []
    install_torch(tmp_path, said.append)
    assert "5 GB" in said[0]
