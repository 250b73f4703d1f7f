"""`deploy/prometheus` against the code: every metric, label, outcome and page that it names is really there."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.api.errors import Fault, TurnoutError
from router.config.model import Config
from tests.deploy.composition import DEPLOY, read_yaml, services
from tests.deploy.enclosure import Enclosure
from tests.support.simulated import simulated_fleet

FOLDER = DEPLOY / "prometheus"
OF_PROMETHEUS = {"instance", "job"}
"""Labels that a scrape adds."""


def alerts() -> dict[str, dict[str, Any]]:
    groups = read_yaml(FOLDER / "alerts.yml")["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """The labels of every sample that a router which has served a request shows to Prometheus."""
    text = asyncio.run(_scraped())
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        # Also of metrics that have no sample in this fleet.
        found.setdefault(family.name + ("_total" if family.type == "counter" else ""), set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def _scraped() -> str:
    async with simulated_fleet("vllm") as fleet, httpx.AsyncClient() as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        while (await client.get(f"{fleet.running.url}/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
        answer = await client.post(f"{fleet.base_url}/chat/completions", json=body)
        assert answer.status_code == 200
        return (await client.get(f"{fleet.running.admin_url}/metrics")).text


def test_every_metric_that_is_named_exists(labels: Mapping[str, set[str]]) -> None:
    """In the alerts and in the README."""
    texts = [(FOLDER / "alerts.yml").read_text(), (DEPLOY / "README.md").read_text()]
    named = {name for text in texts for name in re.findall(r"\b(?:turnout|process)_\w+", text)}
    assert {"turnout_replica_up", "turnout_requests_total", "process_open_fds"} <= named
    assert named <= set(labels)


def test_every_label_that_is_named_exists(labels: Mapping[str, set[str]]) -> None:
    """What is matched or grouped by is a label of each metric of the expression, and told labels survive it."""
    for name, rule in alerts().items():
        metrics = re.findall(r"\bturnout_\w+", rule["expr"])
        grouped = {label for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in _words(group)}
        matched = {match for group in re.findall(r"\{([^}]*)\}", rule["expr"]) for match in _matched(group)}
        for metric in metrics:
            assert grouped <= labels[metric] | OF_PROMETHEUS, name
            assert matched <= labels[metric], name
        told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert told <= (grouped or OF_PROMETHEUS), name


def _words(group: str) -> list[str]:
    return [word.strip() for word in group.split(",")]


def _matched(group: str) -> list[str]:
    return re.findall(r"(\w+)\s*(?:=|!)", group)


def test_what_counts_as_failed_is_whatever_is_not_the_clients_fault() -> None:
    """The outcomes of the alert are the codes of exactly those errors; a new error must be added to it."""
    matched = re.search(r'outcome=~"([^"]+)"', alerts()["TurnoutFailsRequests"]["expr"])
    assert matched
    codes = {error.code for error in _errors(TurnoutError) if error.fault is not Fault.CLIENT}
    assert set(matched[1].split("|")) == codes


def _errors(kind: type[TurnoutError]) -> Iterator[type[TurnoutError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _errors(each)


def test_it_scrapes_the_admin_listener(config: Config) -> None:
    """The service of compose.yaml, at the admin port, at the page that is Prometheus's default."""
    (job,) = read_yaml(FOLDER / "prometheus.yml")["scrape_configs"]
    ((target,),) = [each["targets"] for each in job["static_configs"]]
    host, _, port = target.partition(":")
    assert host in services()
    assert int(port) == config.admin.port
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert f'job="{job["job_name"]}"' in alerts()["TurnoutDown"]["expr"]


def test_the_alerts_are_loaded() -> None:
    """The file that the configuration names is the one that is here."""
    named = read_yaml(FOLDER / "prometheus.yml")["rule_files"]
    assert named == ["alerts.yml"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_promtool_accepts_all_of_it(tools: Path, tmp_path: Path) -> None:
    """The configuration with its token and rules."""
    (tmp_path / "token").write_text("t")
    binds = {FOLDER: "/etc/prometheus", tmp_path / "token": "/run/secrets/admin-token"}
    inside = Enclosure(tools, {"PATH": "/usr/bin:/bin"}, binds=binds)
    assert "SUCCESS: 3 rules found" in inside.run(
        "promtool", "check", "config", "/etc/prometheus/prometheus.yml"
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_alerts_fire_when_they_should(tools: Path) -> None:
    """`promtool test rules` with made-up histories, see `alerts_test.yml`."""
    story = Path(__file__).parent / "alerts_test.yml"
    binds = {FOLDER: "/etc/prometheus", story: "/story/alerts_test.yml"}
    inside = Enclosure(tools, {"PATH": "/usr/bin:/bin"}, binds=binds)
    assert "SUCCESS" in inside.run("promtool", "test", "rules", "/story/alerts_test.yml")
