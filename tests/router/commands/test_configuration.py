"""`turnout check` and `turnout config`, as scripts and people call them."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli import main
from tests.support.configs import EVERYTHING, MODEL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turnout.toml"


def test_check_of_a_valid_file(path: Path) -> None:
    """One line with what there is, exit code 0."""
    path.write_text(MODEL)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}: valid: 1 model, 1 version, 1 replica\n"


def test_check_tells_every_mistake(path: Path) -> None:
    """FILE:LINE: key: text for each, on standard error, exit code 2."""
    path.write_text('[server]\nprot = 1\nport = "x"\n' + MODEL)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{path}:2: server.prot: unknown option; did you mean 'port'?\n"
        f"{path}:3: server.port: expected a whole number such as 8080, got a string\n"
    )


def test_check_tells_what_is_not_available(path: Path) -> None:
    """A file that is valid but cannot be served yet says so, and stays valid."""
    path.write_text("[retries]\ncontinue_streams = true\n" + MODEL)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0
    assert result.stderr.startswith(
        f"`turnout serve` refuses it for now:\n{path}:2: retries.continue_streams: "
    )


def test_check_as_json(path: Path) -> None:
    """One JSON object on standard output, whether the file is valid or not; the exit code is the same."""
    path.write_text("[retries]\ncontinue_streams = true\n" + MODEL)
    result = CliRunner().invoke(main, ["check", str(path), "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [mistake["key"] for mistake in found.pop("unavailable")] == ["retries.continue_streams"]
    assert found == {
        "file": str(path),
        "valid": True,
        "mistakes": [],
        "models": 1,
        "versions": 1,
        "replicas": 1,
    }
    path.write_text("[server]\nworkers = 0\n" + MODEL)
    result = CliRunner().invoke(main, ["check", str(path), "--json"])
    mistake = {"file": str(path), "line": 2, "key": "server.workers", "text": "must be from 1 to 256, got 0"}
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {"file": str(path), "valid": False, "mistakes": [mistake]}


@pytest.mark.parametrize("arguments", [[], ["--defaults"], ["--json"]])
def test_config_masks_secrets(path: Path, arguments: list[str]) -> None:
    """In every form, what is printed parses, and holds no secret."""
    path.write_text(EVERYTHING)
    result = CliRunner().invoke(main, ["config", str(path), *arguments], env={"TOKEN": "t0ken"})
    assert (result.exit_code, result.stderr) == (0, "")
    assert not [secret for secret in ("t0ken", "passw0rd", "inl1ne-k3y") if secret in result.stdout]
    parse = json.loads if "--json" in arguments else tomllib.loads
    assert parse(result.stdout)["server"]["port"] == 9000
    assert parse(result.stdout)["timeouts"]["total_s"] == 900.0


def test_config_shows_when_keys_expire(path: Path) -> None:
    """As TOML has it, and in JSON as text."""
    path.write_text(EVERYTHING)
    environ = {"TOKEN": "t0ken"}
    shown = CliRunner().invoke(main, ["config", str(path)], env=environ).stdout
    assert "\nexpires = 2030-01-01T00:00:00+00:00\n" in shown
    shown = CliRunner().invoke(main, ["config", str(path), "--json"], env=environ).stdout
    assert json.loads(shown)["keys"][0]["expires"] == "2030-01-01T00:00:00+00:00"


def test_config_with_defaults_can_be_used(path: Path) -> None:
    """What `--defaults` prints is a configuration file with the same effect."""
    path.write_text(MODEL)
    effective = CliRunner().invoke(main, ["config", str(path)]).stdout
    path.write_text(CliRunner().invoke(main, ["config", str(path), "--defaults"]).stdout)
    assert "# Address to listen on" in path.read_text()
    assert CliRunner().invoke(main, ["config", str(path)]).stdout == effective


def test_config_of_a_wrong_file(path: Path) -> None:
    """Mistakes go to standard error and nothing to standard output, exit code 2."""
    path.write_text("x = 1\n" + MODEL)
    result = CliRunner().invoke(main, ["config", str(path), "--json"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{path}:1: x: unknown option;")
