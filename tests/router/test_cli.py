"""The command line answers quickly, in one line where something is wrong, and with the exit code that scripts rely on."""

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from router import cli
from router.cli import COMMANDS, PLUGINS, main

NAMES = [*COMMANDS, *(entry.name for entry in entry_points(group=PLUGINS))]


def test_version() -> None:
    """The version is that of the distribution."""
    assert CliRunner().invoke(main, ["--version"]).output == f"turnout, version {version('turnout')}\n"


def test_help_lists_every_command() -> None:
    """Each command is there with the first line of its docstring, those of plugins too."""
    result = CliRunner().invoke(main, ["--help"], terminal_width=200)
    assert result.exit_code == 0
    for name in NAMES:
        assert f"\n  {name} " in result.output
    assert "Print the effective configuration as TOML, secrets masked." in result.output


def test_help_imports_no_command() -> None:
    """`turnout --help` is quick: neither commands nor the server's libraries are loaded for it."""
    script = (
        "import sys; from router.cli import main; main(['--help'], standalone_mode=False);"
        "print(sorted({'uvloop', 'uvicorn', 'starlette', 'httptools', 'msgspec', 'router.commands.serve',"
        "'router.commands.configuration'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.endswith("\n[]\n")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(name: str) -> None:
    """`turnout NAME --help` tells what it does and shows how to call it."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.stderr
    assert "Example" in result.output
    assert f"turnout {name}" in result.output


def test_bad_usage() -> None:
    """An unknown command or option is refused with exit code 2, on standard error."""
    for arguments in (["chekc"], ["check"], ["check", "--nope"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert "Error: " in result.stderr
        assert result.stdout == ""


def test_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system refuses, such as an address in use, ends with exit code 1 and no traceback."""

    @click.command()
    def fail() -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(cli, "_load", lambda _: fail)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1
    assert result.stderr == "Error: [Errno 98] Address already in use\n"


def test_fault_of_the_router_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else is a fault, and shows its traceback."""

    @click.command()
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_load", lambda _: fail)
    assert isinstance(CliRunner().invoke(main, ["check"]).exception, ZeroDivisionError)


def test_plugin_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken plugin is listed without a description, fails alone, and cannot take a command's place."""
    broken = [EntryPoint(name, "no.such.module:command", PLUGINS) for name in ("broken", "check")]
    monkeypatch.setattr(cli, "entry_points", lambda group: broken if group == PLUGINS else [])
    assert CliRunner().invoke(main, ["check", "--help"]).exit_code == 0
    listed = CliRunner().invoke(main, ["--help"])
    assert listed.exit_code == 0
    assert "  broken" in listed.output
    result = CliRunner().invoke(main, ["broken"])
    assert result.exit_code == 1
    assert result.stderr == "Error: this command cannot be loaded: No module named 'no'\n"


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "router"], [str(Path(sys.executable).parent / "turnout")]]
)
def test_both_ways_to_call_it(command: list[str]) -> None:
    """`turnout` and `python -m router` are the same command."""
    run = subprocess.run(
        [*command, "check", "no-such.toml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert run.stderr == "no-such.toml: cannot be read: No such file or directory\n"
    assert run.stdout == ""
