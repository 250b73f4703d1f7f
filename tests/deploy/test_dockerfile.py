"""What can be told of `deploy/Dockerfile` and `.dockerignore` without building; test_image.py builds."""

import re
import tomllib
from pathlib import Path

import pytest

from router.config.model import Config
from tests.deploy.build_context import REPOSITORY, context_files
from tests.deploy.composition import DEPLOY, seconds
from tests.deploy.dockerfile import Stage, UnknownInstruction, parse


@pytest.fixture
def stages() -> tuple[Stage, ...]:
    return parse((DEPLOY / "Dockerfile").read_text())


def test_two_stages_on_one_slim_python_that_the_project_supports(stages: tuple[Stage, ...]) -> None:
    """The second stage has only what is copied from the first, and the Python that it was made with."""
    build, final = stages
    assert build.name == "build" and build.base == final.base
    version = re.search(r"^python:(3\.\d+)-slim-", final.base)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert version and f"Programming Language :: Python :: {version[1]}" in project["classifiers"]
    assert [copy.flags for copy in final.all("COPY")] == [{"from": "build"}]


def test_dependencies_are_checked_against_their_hashes(stages: tuple[Stage, ...]) -> None:
    """One step asks an index, for the locked files with their hashes; all others are told to ask none."""
    pip = [run.text for run in stages[0].all("RUN") if "pip" in run.text]
    assert pip[0].startswith("pip download --require-hashes ")
    assert pip[0].endswith("requirements.lock")
    assert all("--no-index" in text for text in pip[1:])


def test_every_package_of_the_wheel_is_copied(stages: tuple[Stage, ...]) -> None:
    """What pyproject.toml packs and names is in the build, each folder under its own name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packed = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    named = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    copies = [copy.words for copy in stages[0].all("COPY")]
    assert {source for *sources, target in copies for source in sources if target == source} == packed
    assert named <= {source for *sources, _ in copies for source in sources}


def test_the_context_is_the_sources_and_nothing_else(stages: tuple[Stage, ...]) -> None:
    """`.dockerignore` lets through what is copied: no environment, history, test, secret or cache."""
    visible = {path.parts[0] for path in context_files()}
    assert visible == {source for copy in stages[0].all("COPY") for source in copy.words[:-1]}
    assert not any("__pycache__" in path.parts for path in context_files())


def test_a_new_folder_is_not_in_the_context_until_it_is_named(tmp_path: Path) -> None:
    """The list says what is let in, so that a secret that lies about is not."""
    (tmp_path / ".dockerignore").write_text((REPOSITORY / ".dockerignore").read_text())
    for name in ("router/cli.py", "router/__pycache__/cli.pyc", "secrets/token", ".env", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert set(context_files(tmp_path)) == {Path("router/cli.py"), Path("pyproject.toml")}


def test_it_runs_as_nobody_in_particular(stages: tuple[Stage, ...]) -> None:
    """A number that is not root's, and the user that the stage makes."""
    uid, _, gid = stages[-1].last("USER").text.partition(":")
    assert uid == gid and int(uid) >= 10_000
    assert any(f"useradd --uid {uid} " in run.text for run in stages[-1].all("RUN"))


def test_it_starts_the_router_with_the_mounted_configuration(stages: tuple[Stage, ...]) -> None:
    """The console script, which a folder `router/` in the working directory cannot shadow, and SIGTERM to end it."""
    final = stages[-1]
    assert final.last("ENTRYPOINT").words == ("turnout",)
    assert final.last("CMD").words == ("serve", "--config", "/etc/turnout/turnout.toml")
    assert final.last("STOPSIGNAL").text == "SIGTERM"
    assert final.all("WORKDIR") == ()


def test_ports_are_those_of_the_configuration(config: Config, stages: tuple[Stage, ...]) -> None:
    """EXPOSE names both listeners, and the health check asks the public one."""
    assert set(stages[-1].last("EXPOSE").words) == {str(config.server.port), str(config.admin.port)}
    assert f"'127.0.0.1', {config.server.port}," in stages[-1].last("HEALTHCHECK").text


def test_health_check_is_python_alone_and_asks_whether_the_process_lives(stages: tuple[Stage, ...]) -> None:
    """Isolated from the working directory and from proxies; its own timeout ends before Docker's."""
    check = stages[-1].last("HEALTHCHECK")
    assert check.text.startswith('CMD ["python", "-Ic", ')
    assert "'/livez'" in check.text and "http.client" in check.text
    timeout = re.search(r"timeout=(\d+)", check.text)
    assert timeout and int(timeout[1]) < seconds(check.flags["timeout"])


def test_reader_joins_lines_and_fills_in_arguments() -> None:
    """What a build would see: comments gone, continuations joined, flags apart, exec forms decoded."""
    (stage,) = parse(
        'ARG A=base\n# why\nFROM ${A}:1 AS one\nRUN a \\\n    && b\nCOPY --from=x /y /z\nCMD ["a b", \\\n  "c"]\n'
    )
    assert (stage.base, stage.name) == ("base:1", "one")
    run, copy, command = stage.instructions
    assert run.text.split() == ["a", "&&", "b"]
    assert (copy.flags, copy.words) == ({"from": "x"}, ("/y", "/z"))
    assert command.words == ("a b", "c")


@pytest.mark.parametrize("line", ["ADD x y", "COPY --chmod=755 x y", "VOLUME /x"])
def test_reader_refuses_what_it_does_not_know(line: str) -> None:
    """A step that could not be proven is an error, not left out."""
    with pytest.raises(UnknownInstruction):
        parse(f"FROM x\n{line}\n")
