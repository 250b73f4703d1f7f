"""The installed configuration; and roots for the slow tests, made once and gone at the end."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.config.decode import load
from router.config.model import Config
from tests.deploy.composition import DEPLOY
from tests.deploy.dockerfile import parse
from tests.deploy.enclosure import missing_tools, python_base, with_packages
from tests.deploy.image import Image, build

_TOOLS = """
apt-get update --quiet --quiet
cd /tmp
apt-get download --quiet --quiet prometheus promtool docker-compose
for package in *.deb; do dpkg-deb --extract "$package" /; rm "$package"; done
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """`deploy/turnout.toml` beside a token, as in /etc/turnout."""
    (tmp_path / "admin-token").write_text("made-up\n")
    return Path(shutil.copy(DEPLOY / "turnout.toml", tmp_path))


@pytest.fixture
def config(installed: Path) -> Config:
    return load(installed)


@pytest.fixture(scope="session")
def roots() -> Iterator[Path]:
    """A folder for roots."""
    if reason := missing_tools():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="turnout-roots-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def base(roots: Path) -> Path:
    """What stands for the official Python image: the same Debian, with its own Python."""
    final = parse((DEPLOY / "Dockerfile").read_text())[-1]
    begin = time.monotonic()
    python_base(final.base.rpartition("-")[2], roots / "base")
    print(f"base: {mebibytes(roots / 'base')} MiB in {time.monotonic() - begin:.0f} s")
    return roots / "base"


@pytest.fixture(scope="session")
def built(base: Path, roots: Path) -> Image:
    """The image, built as the Dockerfile says."""
    begin = time.monotonic()
    image = build(parse((DEPLOY / "Dockerfile").read_text()), base, roots)
    added = mebibytes(image.root / "opt" / "turnout")
    print(f"image: {added} MiB more than its base, built in {time.monotonic() - begin:.0f} s")
    return image


@pytest.fixture(scope="session")
def tools(base: Path, roots: Path) -> Path:
    """A root with Debian's prometheus, promtool and docker-compose."""
    with_packages(base, roots / "tools", _TOOLS)
    return roots / "tools"


def mebibytes(folder: Path) -> int:
    said = subprocess.run(["du", "-sm", str(folder)], text=True, check=True, stdout=subprocess.PIPE).stdout
    return int(said.split()[0])
