from pathlib import Path

from loadtest.drive.engines import MODEL
from loadtest.drive.fleet import driven_config
from loadtest.simulate.hardware import HARDWARE
from loadtest.simulate.setup import ReplicaSetup
from router.config.decode import decode
from router.config.show import to_toml
from tests.support.configs import EVERYTHING

OWN = """
[models.m]
stable = "v1"
policy = "mine"
[models.m.versions.v1]
served_name = "org/m"
replicas = [ { url = "http://10.0.0.1:8000", engine = "vllm", api_key = "s3cret" } ]
[policies.mine]
kind = "power_of_two"
choices = 4
[server]
workers = 3
port = 9000
[admin]
token = "s3cret"
[scrape]
interval_s = 0.5
"""
REPLICAS = [ReplicaSetup("a", HARDWARE["8b-a10g"]), ReplicaSetup("b", HARDWARE["8b-a10g"], weight=2.0)]
URLS = {"a": "http://127.0.0.1:1", "b": "http://127.0.0.1:2"}


def test_the_policy_stays_and_the_replicas_are_those_of_the_run() -> None:
    written = to_toml(driven_config(decode(OWN, "t.toml"), "mine", REPLICAS, URLS))
    config = decode(written, "driven.toml")
    policy = config.policy_of(config.models[MODEL])
    assert (policy.kind, policy.options["choices"]) == ("power_of_two", 4)
    version = config.models[MODEL].versions["v1"]
    assert version.served_name == MODEL
    assert [(one.replica_id, one.url, one.weight) for one in version.replicas] == [
        ("a", "http://127.0.0.1:1", 1.0),
        ("b", "http://127.0.0.1:2", 2.0),
    ]
    assert (config.server.workers, config.server.port, config.scrape.interval_s) == (3, 0, 0.5)
    assert "s3cret" not in written and config.admin.token is None


def test_nobody_is_kept_out(tmp_path: Path) -> None:
    everything = decode(EVERYTHING, "t.toml", environ={"TOKEN": "t"}, directory=tmp_path)
    config = driven_config(everything, "mine", REPLICAS, URLS)
    assert not config.keys and not config.limits and config.redis is None
    assert list(config.models) == [MODEL]
