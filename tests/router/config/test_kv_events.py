"""KV events need somebody who tells, somebody who can be asked, and a tokenizer to understand them by."""

from pathlib import Path
from textwrap import dedent

import pytest

from router.config import checks
from router.config.decode import decode
from router.config.model import Config
from router.config.show import to_toml
from tests.support.configs import mistakes_in

WHERE = "models.m.versions.v1.replicas[0].kv_events"


def written(engine: str, events: str, version: str = 'tokenizer = "tok"') -> str:
    """One replica of one version; the replica stands at line 7."""
    return dedent(
        f"""
        [models.m]
        stable = "v1"
        [models.m.versions.v1]
        served_name = "org/m"
        {version}
        replicas = [ {{ url = "http://10.0.0.1:8000", engine = "{engine}", kv_events = {{ {events} }} }} ]
        """
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "tokenizer.json").touch()
    return tmp_path


def decoded(text: str, folder: Path) -> Config:
    return decode(text, directory=folder)


def test_they_are_read_and_shown(folder: Path) -> None:
    """With their defaults; what is shown reads as the same."""
    text = written(
        "vllm",
        'endpoint = "tcp://10.0.0.1:5557", replay_endpoint = "tcp://10.0.0.1:5558", topic = "t", ranks = 2',
    )
    config = decoded(text, folder)
    version = config.models["m"].versions["v1"]
    assert version.tokenizer == str(folder / "tok")
    assert version.kv_block_tokens == 16
    events = version.replicas[0].kv_events
    assert events is not None
    assert (events.endpoint, events.ranks, events.interval_s) == ("tcp://10.0.0.1:5557", 2, 0.5)
    for every_option in (True, False):
        assert decoded(to_toml(config, every_option=every_option), Path("/")) == config


def test_trtllm_may_be_asked_over_http(folder: Path) -> None:
    """An empty table is enough."""
    replica = decoded(written("trtllm", ""), folder).models["m"].versions["v1"].replicas[0]
    assert replica.kv_events is not None
    assert replica.kv_events.endpoint is None


MISTAKES = {
    "no tokenizer": (
        written("trtllm", "", ""),
        f"7: {WHERE}: tells token ids, and prompts are texts; write the version's tokenizer, or remove this",
    ),
    "an engine that tells nothing": (
        written("tgi", ""),
        f"7: {WHERE}: is for engine = 'vllm' and 'trtllm', this replica is 'tgi'; remove it",
    ),
    "nowhere to listen": (
        written("vllm", ""),
        f'7: {WHERE}.endpoint: is missing; write endpoint = "tcp://10.0.0.1:5557"',
    ),
    "a replay of nothing": (
        written("trtllm", 'replay_endpoint = "tcp://h:1"'),
        f"7: {WHERE}.replay_endpoint: sends again what an endpoint published; write endpoint, too",
    ),
    "ranks without ports": (
        written("vllm", 'endpoint = "ipc:///run/kv", ranks = 2'),
        f"7: {WHERE}.ranks: count on from a port; write endpoints that begin with 'tcp://', or 1",
    ),
    "no endpoint": (
        written("vllm", 'endpoint = "10.0.0.1:5557"'),
        f"7: {WHERE}.endpoint: must be an endpoint such as 'tcp://10.0.0.1:5557' or 'tcp://*:5557'",
    ),
    "no place to ask": (
        written("vllm", 'endpoint = "tcp://*:5557", replay_endpoint = "tcp://*:5558"'),
        f"7: {WHERE}.replay_endpoint: must be an endpoint such as 'tcp://10.0.0.1:5558'",
    ),
}


@pytest.mark.parametrize(("text", "mistake"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(folder: Path, text: str, mistake: str) -> None:
    """Where it is, what is wrong, and what would be right."""
    assert mistakes_in(text, folder) == [f"t.toml:{mistake}"]


def test_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    """Told when the file is read, not when the first request comes."""
    text = written("trtllm", "")
    assert mistakes_in(text, tmp_path) == [
        f"t.toml:6: models.m.versions.v1.tokenizer: there is no tokenizer.json in '{tmp_path / 'tok'}'"
    ]


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://10.0.0.1:5557",
        "tcp://vllm-0.ml.svc:5557",
        "tcp://[fd00::1]:5557",
        "tcp://*:5557",
        "ipc:///run/kv",
    ],
)
def test_endpoints(endpoint: str) -> None:
    """Addresses of both families, names, wildcards, local paths."""
    assert checks.zmq_endpoint(endpoint) is None


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "tcp://",
        "tcp://h",
        "tcp://h:0",
        "tcp://h:x",
        "http://h:1",
        "tcp://h:1/x",
        "tcp://a b:1",
        "ipc://kv",
    ],
)
def test_endpoints_that_are_none(endpoint: str) -> None:
    """ZeroMQ would refuse them, or mean something else."""
    assert checks.zmq_endpoint(endpoint) is not None
