"""`/api/config`: what is in force, what was, and the way back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from router.admin.app import Sources, create_admin_app
from router.api.openai import RequestRules
from router.config.model import AdminConfig, Config
from router.config.origin import Origin
from router.config.reload import Reloader, first_of
from router.config.secret import Secret
from router.observe.metrics import RouterMetrics
from tests.router.admin.test_app import LOCAL, NothingTold
from tests.support.bare_replicas import fleet, replica
from tests.support.configs import MODEL

SECRET = MODEL.replace('"vllm" }', '"vllm", api_key = "inl1ne-k3y" }')


def client_of(file: Path, token: str | None = None, text: str = SECRET) -> TestClient:
    file.write_text(text)
    origin = Origin(file)
    config, current = origin.decode(text), fleet(replica())
    metrics = RouterMetrics(lambda: current)

    async def apply(config: Config) -> None:
        """Whatever it is."""

    reloader = Reloader(config, apply, metrics.config, origin, history=first_of(config, text))
    sources = Sources(
        fleet=lambda: current,
        metrics=metrics,
        reports=NothingTold(),
        rules=RequestRules(),
        reloader=reloader,
    )
    app = create_admin_app(sources, AdminConfig(token=None if token is None else Secret(token)))
    return TestClient(app, base_url="http://127.0.0.1:8081", client=LOCAL)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with client_of(tmp_path / "t.toml") as client:
        yield client


def test_what_is_in_force(client: TestClient) -> None:
    """The whole configuration, without its secrets."""
    shown = client.get("/api/config").json()
    configuration = shown.pop("configuration")
    assert shown == {"reload_failed": False, "mistakes": [], "rolled_back_to": None}
    assert (configuration["generation"], configuration["why"], configuration["in_force"]) == (
        1,
        "start",
        True,
    )
    assert 'served_name = "org/m"' in configuration["toml"]
    assert "inl1ne-k3y" not in client.get("/api/config/history").text


def test_the_way_back(client: TestClient) -> None:
    """It is a generation of its own, the newest first."""
    answer = client.post("/api/config/rollback", json={"generation": 1})
    assert answer.status_code == 200
    assert answer.json()["rolled_back_to"] == 1
    listed = client.get("/api/config/history").json()["generations"]
    assert [(each["generation"], each["why"], each["in_force"]) for each in listed] == [
        (2, "rollback to 1", True),
        (1, "start", False),
    ]
    assert client.get("/api/status").json()["config"]["rolled_back_to"] == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"generation": 7}', 404, "not_found"),
        (b'{"generation": "1"}', 400, "invalid_request"),
        (b'{"generation": 1, "more": 2}', 400, "invalid_request"),
        (b"{", 400, "invalid_request"),
    ],
)
def test_a_way_that_is_none(client: TestClient, body: bytes, status: int, code: str) -> None:
    """Refused by name, and nothing has changed."""
    answer = client.post("/api/config/rollback", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert client.get("/api/config").json()["configuration"]["generation"] == 1


def test_what_cannot_be_used_any_more(tmp_path: Path) -> None:
    """A conflict, with every mistake: the secret's file of then is gone."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    text = SECRET.replace('"inl1ne-k3y"', '"file:secret"')
    with client_of(tmp_path / "t.toml", text=text) as client:
        secret.unlink()
        answer = client.post("/api/config/rollback", json={"generation": 1})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "configuration_refused")
        assert "the file 'secret' cannot be read" in answer.json()["error"]["message"]


def test_with_a_token_nobody_gets_in_without_it(tmp_path: Path) -> None:
    """As everywhere on this listener."""
    with client_of(tmp_path / "t.toml", token="t0ken") as client:
        for answer in (
            client.get("/api/config"),
            client.get("/api/config/history"),
            client.post("/api/config/rollback", json={"generation": 1}),
        ):
            assert answer.status_code == 401
