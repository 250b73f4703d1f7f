"""The table of candidates: their files and command lines."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from loadtest.bench.candidates import CANDIDATES, Candidate, Launch, candidates_named

URLS = tuple(f"http://127.0.0.1:{port}" for port in (9001, 9002, 9003, 9004))


def named(name: str) -> Candidate:
    return next(candidate for candidate in CANDIDATES if candidate.name == name)


def command_of(name: str, folder: Path) -> list[str]:
    command = named(name).command
    assert command is not None
    return command(Launch(folder, 8100, 8101, URLS, Path("/peers")))


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("turnout", "round_robin"),
        ("turnout:round_robin", "round_robin"),
        ("turnout:expected_latency", "expected_latency"),
        ("turnout:prefix_affinity", "prefix_affinity"),
    ],
)
def test_turnout_gets_one_model_with_four_vllm_replicas(name: str, policy: str, tmp_path: Path) -> None:
    """The file is TOML and says what the peers are told on their command lines."""
    command = command_of(name, tmp_path)
    document = tomllib.loads(Path(command[-1]).read_text())
    assert command[1:3] == ["serve", "--config"]
    assert (document["server"]["port"], document["admin"]["port"]) == (8100, 8101)
    model = document["models"]["m"]
    assert model["policy"] == policy
    replicas = model["versions"][model["stable"]]["replicas"]
    assert [replica["url"] for replica in replicas] == list(URLS)
    assert {replica["engine"] for replica in replicas} == {"vllm"}


@pytest.mark.parametrize("name", ["vllm-router:cache_aware", "sglang-router:cache_aware"])
def test_the_rust_routers_get_replicas_policy_and_ports(name: str, tmp_path: Path) -> None:
    """Both ports are their own, so that several may run at once."""
    command = command_of(name, tmp_path)
    assert set(URLS) <= set(command)
    assert command[command.index("--policy") + 1] == "cache_aware"
    assert command[command.index("--port") + 1] == "8100"
    assert command[command.index("--prometheus-port") + 1] == "8101"
    assert command[0].startswith("/peers/bin/")


def test_the_files_of_nginx_and_litellm_name_every_replica(tmp_path: Path) -> None:
    """No replica is forgotten."""
    nginx = Path(command_of("nginx", tmp_path)[-1]).read_text()
    assert all(f"server {url.removeprefix('http://')};" in nginx for url in URLS)
    assert "proxy_buffering off;" in nginx
    command_of("litellm", tmp_path)
    assert all(f"{url}/v1" in (tmp_path / "litellm.yaml").read_text() for url in URLS)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    """Its own check passes."""
    command = command_of("nginx", tmp_path)
    done = subprocess.run([*command, "-t"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_candidates_are_found_by_name_and_by_program() -> None:
    """A whole name is one row; a program's name is all its rows, each once."""
    assert [c.name for c in candidates_named("turnout, nginx")] == ["turnout", "nginx"]
    both = ["vllm-router:round_robin", "vllm-router:cache_aware"]
    assert [c.name for c in candidates_named("vllm-router,vllm-router:cache_aware")] == both
    with pytest.raises(ValueError, match="unknown candidate 'envoy'; there are turnout, "):
        candidates_named("envoy")
