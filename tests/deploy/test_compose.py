"""`deploy/compose.yaml` against the code: every command, file, port, clock and name in it."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from loadtest.engine.command import engine
from loadtest.engine.dialect import DIALECTS
from router.cli import main
from router.config.model import Config
from tests.deploy.build_context import REPOSITORY
from tests.deploy.composition import DEPLOY, Service, composition, read_yaml, seconds, services
from tests.deploy.dockerfile import parse
from tests.deploy.enclosure import Enclosure, ended

LAST_WORDS_S = 10.0
"""Between the end of draining and the exit: error frames, the access log, the interpreter."""


def engines() -> Iterator[Service]:
    return (service for service in services().values() if service.command[:1] == ("engine",))


def parsed(command: tuple[str, ...]) -> click.Context:
    """What the real command line makes of it; raises click.UsageError as it would."""
    name, *rest = command
    with click.Context(main) as context:
        subcommand = main.get_command(context, name)
        assert subcommand is not None, name
        return subcommand.make_context(name, rest, parent=context)


def test_the_command_line_accepts_every_command() -> None:
    """Those of the services and of the image: every word, option and value."""
    image = parse((DEPLOY / "Dockerfile").read_text())[-1]
    assert parsed(image.last("CMD").words).params["path"] == Path("/etc/turnout/turnout.toml")
    for service in engines():
        assert parsed(service.command).params["dialect"] in DIALECTS
    assert parsed(("engine", "tgi")).command is engine
    with pytest.raises(click.UsageError):
        parsed(("engine", "vllm", "--no-such-option"))


def test_every_file_is_there() -> None:
    """Bind mounts, the Dockerfile and its context; a secret is made by the operator, outside of Git."""
    for service in services().values():
        for path in service.files:
            assert path.exists() or path.parent.name == "secrets", path
    build = composition()["services"]["turnout"]["build"]
    assert (DEPLOY / build["context"]).resolve() == REPOSITORY
    assert (REPOSITORY / build["dockerfile"]).is_file()
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text().splitlines()


def test_files_are_where_the_programs_look(config: Config) -> None:
    """The configuration and its token where CMD names them, and Prometheus's files where its command does."""
    router, prometheus = services()["turnout"], services()["prometheus"]
    assert router.files[DEPLOY / "turnout.toml"] == "/etc/turnout/turnout.toml"
    assert config.admin.token is not None
    token = config.admin.token.masked().removeprefix("file:")
    assert router.files[DEPLOY / "secrets" / "admin-token"] == f"/etc/turnout/{token}"
    folder = prometheus.files[DEPLOY / "prometheus"]
    assert f"--config.file={folder}/prometheus.yml" in prometheus.command
    scrape = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]
    assert scrape["authorization"]["credentials_file"] in prometheus.files.values()
    assert f"--storage.tsdb.path={prometheus.volumes[0]}" in prometheus.command


def test_every_replica_of_the_configuration_is_a_service(config: Config) -> None:
    """Its name, port, engine and model are those of the engine that is started, which the router can reach."""
    whole = composition()["services"]
    version = config.models["demo-8b"].versions["v1"]
    assert {urlsplit(replica.url).hostname for replica in version.replicas} == {
        each.name for each in engines()
    }
    for replica in version.replicas:
        address = urlsplit(replica.url)
        assert address.hostname is not None
        params = parsed(services()[address.hostname].command).params
        assert (params["port"], params["dialect"]) == (address.port, replica.engine)
        assert (params["model"], params["host"]) == (version.served_name, "0.0.0.0")
        assert set(whole[address.hostname]["networks"]) <= set(whole["turnout"]["networks"])


def test_published_ports_are_listened_on(config: Config) -> None:
    """Clients reach the router from everywhere; the admin listener and Prometheus only this host does."""
    ports = composition()["services"]["turnout"]["ports"]
    public, admin = config.server.port, config.admin.port
    assert ports == [f"{public}:{public}", f"127.0.0.1:{admin}:{admin}"]
    assert config.server.host == config.admin.host == "0.0.0.0"
    assert composition()["services"]["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]


def test_health_checks_ask_what_the_service_listens_on() -> None:
    """Each service has one, on its own port; the router's is that of the image."""
    image = parse((DEPLOY / "Dockerfile").read_text())[-1]
    for service in services().values():
        if service.command[:1] == ("engine",):
            port = parsed(service.command).params["port"]
            assert f"'127.0.0.1', {port}," in service.healthcheck[-1]
            assert "'/health'" in service.healthcheck[-1]
        else:
            assert service.healthcheck or image.all("HEALTHCHECK")


def test_health_checks_need_no_more_than_python() -> None:
    """No shell, nothing of the working directory, and what Python is given compiles."""
    for service in engines():
        assert service.healthcheck[:2] == ("python", "-Ic")
        compile(service.healthcheck[2], service.name, "exec")


def test_whoever_depends_waits_for_health() -> None:
    """The router for its engines, Prometheus for the router."""
    whole = composition()["services"]
    waits = {name: plain.get("depends_on", {}) for name, plain in whole.items()}
    assert set(waits["turnout"]) == {each.name for each in engines()}
    assert set(waits["prometheus"]) == {"turnout"}
    conditions = {each["condition"] for depends in waits.values() for each in depends.values()}
    assert conditions == {"service_healthy"}


def test_nothing_is_killed_before_it_has_drained(config: Config) -> None:
    """The grace period is longer than settling, draining and the last words; an engine's than its own drain."""
    grace = seconds(services()["turnout"].plain["stop_grace_period"])
    assert grace >= config.server.settle_s + config.server.drain_timeout_s + LAST_WORDS_S
    for service in engines():
        drain = parsed(service.command).params["shutdown_timeout"]
        assert seconds(service.plain["stop_grace_period"]) >= drain + LAST_WORDS_S


def test_every_service_is_confined() -> None:
    """Read-only root, no capability, no new privilege, and a bound on processors, memory and processes."""
    for service in services().values():
        plain = service.plain
        assert plain["read_only"] is True
        assert plain["cap_drop"] == ["ALL"]
        assert plain["security_opt"] == ["no-new-privileges:true"]
        assert set(plain["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


def test_a_secret_is_a_file() -> None:
    """Compose cannot give a secret of any other kind to a service whose root is read-only."""
    assert all(set(secret) == {"file"} for secret in composition()["secrets"].values())


def test_the_commands_of_the_first_lines_make_the_secret() -> None:
    """The file that they write is the one that is mounted."""
    text = (DEPLOY / "compose.yaml").read_text()
    made = re.search(r"> (\S+)$", text, re.MULTILINE)
    assert made and (REPOSITORY / made[1]).parent.name == "secrets"
    assert REPOSITORY / made[1] in services()["turnout"].files


def test_docker_compose_accepts_it(tmp_path: Path) -> None:
    """Where the plugin is installed: `docker compose config` finds nothing wrong."""
    docker = shutil.which("docker")
    if docker is None or ended([docker, "compose", "version"]).returncode != 0:
        pytest.skip("needs docker with the compose plugin; the slow test below brings its own")
    command = [docker, "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = ended(command)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_docker_compose_of_debian_accepts_it(tools: Path) -> None:
    """The same with the plugin in a root of its own, which needs no daemon to check a file."""
    plugin = "/usr/libexec/docker/cli-plugins/docker-compose"
    inside = Enclosure(tools, {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}, binds={DEPLOY: "/srv/deploy"})
    said = inside.run(plugin, "--file", "/srv/deploy/compose.yaml", "config", "--format", "json")
    assert set(json.loads(said)["services"]) == set(services())
