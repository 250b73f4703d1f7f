"""The image, built by running its Dockerfile's steps, and the composition, run from it. Slow: minutes, as root."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.build_context import REPOSITORY
from tests.deploy.composition import services
from tests.deploy.enclosure import Enclosure
from tests.deploy.image import Image, save_images

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def seen(built: Image, tools: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`Findings` of the whole composition, as JSON."""
    prometheus = Image(tools, {"PATH": "/usr/bin:/bin"}, user="65534:65534", entrypoint=("prometheus",))
    stated = tmp_path_factory.mktemp("images") / "images.json"
    save_images({services()["turnout"].image: built, services()["prometheus"].image: prometheus}, stated)
    apart = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"]
    command = [*apart, sys.executable, "-m", "tests.deploy.running", str(stated)]
    done = subprocess.run(command, check=False, cwd=REPOSITORY, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    findings: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(findings, indent=2))
    return findings


def test_python_is_the_one_that_the_base_names(built: Image) -> None:
    """What was proven was proven with the version of the image's tag."""
    said = Enclosure(built.root, built.environ).run("python", "--version")
    dockerfile = (REPOSITORY / "deploy" / "Dockerfile").read_text()
    assert f"python:{'.'.join(said.split()[1].split('.')[:2])}-slim-" in dockerfile


def test_only_what_it_needs_is_in_it(built: Image) -> None:
    """No pip, build tool, test tool or compiler comes with Turnout, and no cache or download stays."""
    packages = {
        path.name.partition("-")[0]
        for path in built.root.glob("opt/turnout/lib/python3*/site-packages/*.dist-info")
    }
    assert {"turnout", "uvicorn", "httptools", "prometheus_client"} <= packages
    assert not packages & {"pip", "hatchling", "editables", "pathspec", "pytest", "mypy", "ruff"}
    left = [
        "wheels",
        "src",
        "root/.cache",
        "usr/bin/gcc",
        "usr/bin/cc",
        "etc/pip.conf",
        "opt/turnout/bin/pip",
    ]
    assert [path for path in left if (built.root / path).exists()] == []


def test_nothing_in_it_belongs_to_the_user_that_runs_it(built: Image) -> None:
    """Whoever takes over the process cannot change its code."""
    owners = {path.lstat().st_uid for path in (built.root / "opt" / "turnout").rglob("*")}
    assert owners == {0}


def test_every_command_works(built: Image) -> None:
    """Each tells its usage, with no network, as the image's user, in a read-only root."""
    inside = Enclosure(built.root, built.environ, user=built.user, network=False)
    for command in ("serve", "check", "config", "engine", "demo", "bench"):
        assert "Usage: turnout" in inside.run("turnout", command, "--help")


def test_health_check_tells_a_running_router_from_none(seen: dict[str, Any]) -> None:
    """It fails before the start and succeeds after it."""
    assert seen["healthy_before_start"] is False
    assert seen["seconds_to_healthy"] > 0


def test_the_process_has_no_privileges(seen: dict[str, Any]) -> None:
    """The user of the Dockerfile, no group more, no capability, and no way to get any."""
    process = seen["process"]
    assert process["Uid"].split() == process["Gid"].split() == ["10001"] * 4
    assert process["Groups"] == ""
    assert {process["CapEff"], process["CapPrm"], process["CapBnd"]} == {"0" * 16}
    assert process["NoNewPrivs"] == "1"
    assert seen["root_is_read_only"]


def test_a_completion_is_streamed(seen: dict[str, Any]) -> None:
    """64 tokens arrive one after the other, from the first to `[DONE]`."""
    answers = seen["answers"]
    stream = answers["stream"]
    assert (answers["live"], answers["ready"], stream["status"], stream["done"]) == (200, 200, 200, True)
    assert stream["events"] > 60
    assert stream["first_s"] < stream["last_s"] / 2


def test_every_engine_of_the_composition_is_used(seen: dict[str, Any]) -> None:
    """Sessions spread over all of them."""
    assert seen["replicas"] == ["gpu-1", "gpu-2", "gpu-3"]


def test_metrics_need_the_token(seen: dict[str, Any]) -> None:
    """401 without, 200 with it."""
    assert (seen["answers"]["metrics_without_token"], seen["answers"]["metrics_with_token"]) == (401, 200)


def test_prometheus_reads_the_router_and_evaluates_the_alerts(seen: dict[str, Any]) -> None:
    """With the files of deploy/prometheus and the command of compose.yaml; a router that ends is noticed."""
    assert seen["targets"] == ["up"]
    assert seen["rules"] == dict.fromkeys(
        ["TurnoutModelWithoutReplica", "TurnoutFailsRequests", "TurnoutDown"], "ok"
    )
    assert seen["down_alert"] in {"pending", "firing"}


def test_sigterm_cuts_no_stream(seen: dict[str, Any]) -> None:
    """It is not ready at once, an open stream that outlasts settling is finished, and the exit code is 0."""
    drained = seen["drained"]
    assert drained["ready"] == 503
    assert drained["stream"]["done"]
    assert drained["stream"]["last_s"] > 10
    assert drained["exit_code"] == 0
    assert drained["seconds_to_exit"] < 60
