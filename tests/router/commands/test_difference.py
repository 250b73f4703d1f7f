"""`turnout diff`, as scripts and people call it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router.cli import main
from tests.support.configs import MODEL


def diff(folder: Path, new: str, *options: str) -> Result:
    (folder / "old.toml").write_text(MODEL)
    (folder / "new.toml").write_text(new)
    paths = (str(folder / "old.toml"), str(folder / "new.toml"))
    return CliRunner().invoke(main, ["diff", *paths, *options])


@pytest.mark.parametrize(
    ("new", "said", "code"),
    [
        (MODEL + "# a word", "nothing changes\n", 0),
        (
            MODEL + "[retries]\nmax_attempts = 2\n",
            "  retries.max_attempts: 3 -> 2\na reload applies all of it\n",
            0,
        ),
        (
            MODEL + "[server]\nworkers = 2\n[retries]\nmax_attempts = 2\n",
            (
                "! server.workers: 1 -> 2 (processes are made at the start)\n"
                "  retries.max_attempts: 3 -> 2\n"
                "this needs a restart, for what is marked with '!'; a reload refuses all of it\n"
            ),
            1,
        ),
    ],
)
def test_the_exit_code_says_what_can_be_done(tmp_path: Path, new: str, said: str, code: int) -> None:
    """Nothing, or a reload: 0. A restart: 1."""
    result = diff(tmp_path, new)
    assert (result.stdout, result.exit_code) == (said, code)


def test_one_that_is_invalid(tmp_path: Path) -> None:
    """Or asks for what is not available: its mistakes, and 2."""
    for new in (MODEL + "[retries]\nmax_atempts = 2\n", MODEL + "[retries]\ncontinue_streams = true\n"):
        result = diff(tmp_path, new)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert result.stderr.startswith(f"{tmp_path / 'new.toml'}:8: retries.")


def test_as_json(tmp_path: Path) -> None:
    """The same for scripts."""
    result = diff(tmp_path, MODEL + "[server]\nworkers = 2\n", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "changes": [
            {
                "path": "server.workers",
                "text": "server.workers: 1 -> 2 (processes are made at the start)",
                "restart": True,
            }
        ],
        "restart": True,
    }
