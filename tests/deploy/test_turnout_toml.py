"""`deploy/turnout.toml` is valid, can be served, and its clocks fit together."""

import json
from pathlib import Path

from click.testing import CliRunner

from router.cli import main
from router.config.model import Config


def test_check_accepts_it_and_serve_would_too(installed: Path) -> None:
    """`turnout check` finds no mistake, and nothing that is not available."""
    result = CliRunner().invoke(main, ["check", "--json", str(installed)])
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert (said["mistakes"], said["unavailable"], said["replicas"]) == ([], [], 3)


def test_check_names_the_token_that_is_not_there(installed: Path) -> None:
    """Forgetting the one file that must be made is told by name, with exit code 2."""
    (installed.parent / "admin-token").unlink()
    result = CliRunner().invoke(main, ["check", str(installed)])
    assert result.exit_code == 2
    assert "admin.token: the file 'admin-token' cannot be read" in result.output


def test_no_secret_stands_in_it(config: Config) -> None:
    """The token is a reference."""
    assert config.admin.token is not None
    assert config.admin.token.masked() == "file:admin-token"


def test_a_restart_cuts_no_answer(config: Config) -> None:
    """Draining lasts as long as the longest answer may."""
    assert config.server.drain_timeout_s >= config.timeouts.total_s
