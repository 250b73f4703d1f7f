"""`deploy/README.md` names nothing that is not there."""

import re
import shlex
from pathlib import Path

import pytest

from router.config.model import Config
from tests.deploy.build_context import REPOSITORY
from tests.deploy.composition import DEPLOY, services
from tests.deploy.test_compose import parsed
from tests.deploy.test_prometheus import alerts
from tests.deploy.test_turnout_service import settings
from tests.support.configs import single_options


@pytest.fixture
def readme() -> str:
    return (DEPLOY / "README.md").read_text()


def test_every_link_leads_somewhere(readme: str) -> None:
    """Files of the folder; and every file of the folder is linked."""
    linked = {target for target in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in target}
    assert all((DEPLOY / target).exists() for target in linked)
    assert {path.name for path in DEPLOY.iterdir()} - {"README.md", ".gitignore", "secrets"} <= linked


def test_every_path_of_the_repository_exists(readme: str) -> None:
    """`deploy/…` and the lock file; what the operator makes is made by a command before it."""
    for path in re.findall(r"\bdeploy/[\w./-]+|\brequirements\.lock", readme):
        assert (REPOSITORY / path).exists() or f"> {path}" in readme or f"700 {path}" in readme, path


def test_its_turnout_commands_are_accepted(readme: str) -> None:
    """By the real command line."""
    commands = [shlex.split(text) for text in re.findall(r"`turnout ([^`]+)`", readme)]
    assert commands
    for words in commands:
        parsed(tuple(words))


def test_it_installs_what_the_unit_starts(readme: str) -> None:
    """The environment, the configuration and the user of turnout.service."""
    unit = settings()
    for command in (*unit["ExecStart"], *unit["ExecStartPre"]):
        program, *words = shlex.split(command)
        assert f"python3 -m venv {Path(program).parent.parent}\n" in readme
        assert all(word in readme for word in words if word.startswith("/"))
    assert re.search(rf"^useradd --system .*\b{unit['User'][0]}$", readme, re.MULTILINE)


def test_options_services_and_alerts_have_their_names(readme: str) -> None:
    """What stands in backticks and looks like an option is one; alerts are exactly those there are."""
    options = {name for _, name, _ in single_options()}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", readme))
    others = {"stop_grace_period", "read_only", "kv_events", "power_of_two", "least_requests"}
    metrics = {name for name in named if name.startswith(("turnout_", "process_"))}
    assert named - others - metrics <= options
    assert set(re.findall(r"^- \*\*(Turnout\w+)\*\*", readme, re.MULTILINE)) == set(alerts())
    assert "gpu-1" in services()


def test_ports_and_clocks_are_those_of_the_configuration(readme: str, config: Config) -> None:
    """The numbers in the text."""
    assert f"http://127.0.0.1:{config.server.port}/v1/chat/completions" in readme
    assert f"`GET /metrics` at port {config.admin.port}" in readme
    assert f'"model": "{next(iter(config.models))}"' in readme
    assert settings()["LimitNOFILE"][0] in readme
