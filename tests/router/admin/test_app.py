"""The admin listener over HTTP: who gets in, what is there, and what draining does."""

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from router.admin.app import Sources, create_admin_app
from router.api.openai import RequestRules
from router.config.model import AdminConfig, Secret
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.observe.gauges import ReplicaGauges
from router.observe.metrics import RouterMetrics
from tests.support.bare_replicas import fleet, replica

LOCAL = ("127.0.0.1", 50000)


class NothingTold:
    def figures(self, replica: Replica) -> None:
        return None

    def seen(self, replica: Replica) -> None:
        return None

    def warnings(self, replica: Replica) -> tuple[str, ...]:
        return ()


def admin(current: Fleet, token: str | None = None, client: tuple[str, int] = LOCAL) -> TestClient:
    config = AdminConfig(token=None if token is None else Secret(token))
    metrics = RouterMetrics(
        lambda: current, more=[ReplicaGauges(lambda: current, lambda _: None, lambda: 0.0)]
    )
    sources = Sources(fleet=lambda: current, metrics=metrics, reports=NothingTold(), rules=RequestRules())
    app = create_admin_app(sources, config)
    return TestClient(app, base_url="http://127.0.0.1:8081", client=client, raise_server_exceptions=False)


@pytest.fixture
def replicas() -> list[Replica]:
    return [
        replica("http://a:8000"),
        replica("http://a:8000", version="v2"),
        replica("http://b:8000", engine="triton"),
    ]


@pytest.fixture
def client(replicas: list[Replica]) -> Iterator[TestClient]:
    with admin(fleet(*replicas)) as client:
        yield client


def test_status_shows_everything(client: TestClient) -> None:
    """One document holds readiness, the configuration, models and replicas."""
    answer = client.get("/api/status")
    status = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert status["ready"] is True
    assert status["config"] == {
        "generation": 1,
        "reload_failed": False,
        "mistakes": [],
        "rolled_back_to": None,
        "behind": 0,
    }
    assert status["uptime_s"] >= 0
    assert status["turnout_version"]
    assert [model["model"] for model in status["models"]] == ["m"]
    assert [each["id"] for each in status["replicas"]] == ["a:8000", "a:8000", "b:8000"]
    assert client.get("/api/models").json() == {"models": status["models"]}
    assert client.get("/api/replicas").json() == {"replicas": status["replicas"]}


def test_metrics_are_for_prometheus(client: TestClient) -> None:
    """The text parses, and holds the router's, the replicas' and the process's metrics."""
    answer = client.get("/metrics")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert names >= {
        "turnout_config_generation", "turnout_replica_up", "turnout_requests", "process_resident_memory_bytes",
        "process_open_fds", "python_gc_collections",
    }  # fmt: skip


def test_two_routers_in_one_process_have_metrics_each() -> None:
    """Nothing is registered anywhere twice."""
    first, second = admin(fleet(replica())), admin(fleet(replica("http://b")))
    assert 'replica="a:8000"' in first.get("/metrics").text
    assert 'replica="a:8000"' not in second.get("/metrics").text


def test_draining_concerns_every_version_of_the_process(client: TestClient, replicas: list[Replica]) -> None:
    """No new requests until it is undone; the answer shows the replicas as they are now."""
    answer = client.post("/api/replicas/a:8000/drain")
    assert answer.status_code == 200
    assert [(each["version"], each["draining"], each["ready"]) for each in answer.json()["replicas"]] == [
        ("v1", True, False),
        ("v2", True, False),
    ]
    assert [each.draining for each in replicas] == [True, True, False]
    client.post("/api/replicas/a:8000/undrain")
    assert [each.ready for each in replicas] == [True, True, True]


def test_an_id_may_hold_slashes() -> None:
    """Ids are what the configuration allows them to be."""
    one = replica("http://rack-1/gpu:7")
    client = admin(fleet(one))
    assert client.post("/api/replicas/rack-1/gpu:7/drain").status_code == 200
    assert one.draining


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/status/", 404, "not_found"),
        ("GET", "/v1/models", 404, "not_found"),
        ("POST", "/api/status", 405, "method_not_allowed"),
        ("GET", "/api/replicas/a:8000/drain", 405, "method_not_allowed"),
        ("POST", "/api/replicas/nobody/drain", 404, "not_found"),
    ],
)
def test_errors_are_json(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    """What is not there is said in the same shape as on the public side."""
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code


def test_a_defect_is_a_500_in_json() -> None:
    """A handler that fails does not show its trace."""

    class Broken(NothingTold):
        def warnings(self, replica: Replica) -> tuple[str, ...]:
            raise ValueError("secret detail")

    current = fleet(replica())
    sources = Sources(
        fleet=lambda: current,
        metrics=RouterMetrics(lambda: current),
        reports=Broken(),
        rules=RequestRules(),
    )
    app = create_admin_app(sources, AdminConfig())
    client = TestClient(app, base_url="http://127.0.0.1:8081", client=LOCAL, raise_server_exceptions=False)
    answer = client.get("/api/status")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


# ---- who gets in ----


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer", "Basic sesame", "sesame", "Bearer sesame2", "Bearer é"]
)
def test_with_a_token_nobody_gets_in_without_it(replicas: list[Replica], header: str | None) -> None:
    """Loopback or not, reading or writing: 401, and nothing happens."""
    client = admin(fleet(*replicas), token="sesame")
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    for method, path in (("GET", "/metrics"), ("GET", "/api/status"), ("POST", "/api/replicas/a:8000/drain")):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not replicas[0].draining


def test_with_the_token_everybody_gets_in(replicas: list[Replica]) -> None:
    """From any address, also under another host name; the scheme's case does not matter."""
    client = admin(fleet(*replicas), token="sesame", client=("10.0.0.7", 1))
    for header in ("Bearer sesame", "bearer sesame", "BEARER  sesame"):
        headers = {"authorization": header, "host": "turnout.example"}
        assert client.get("/api/status", headers=headers).status_code == 200
        assert client.post("/api/replicas/a:8000/drain", headers=headers).status_code == 200


def test_two_credentials_are_none(replicas: list[Replica]) -> None:
    """A repeated header is refused instead of one of them being believed."""
    client = admin(fleet(*replicas), token="sesame")
    twice = [("authorization", "Bearer sesame"), ("authorization", "Bearer wrong")]
    assert client.get("/metrics", headers=twice).status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_without_a_token_this_machine_gets_in(host: str) -> None:
    """Reads and writes, from every loopback address."""
    client = admin(fleet(replica()), client=(host, 1))
    assert client.get("/metrics").status_code == 200
    assert client.post("/api/replicas/a:8000/drain").status_code == 200


@pytest.mark.parametrize(
    "host", ["10.0.0.7", "192.168.1.1", "::ffff:10.0.0.7", "2001:db8::1", "testclient", ""]
)
def test_without_a_token_other_machines_do_not(host: str) -> None:
    """Neither the page nor anything else, even if they ask for localhost."""
    client = admin(fleet(replica()), client=(host, 1))
    for path in ("/", "/metrics", "/api/status"):
        answer = client.get(path, headers={"host": "localhost:8081"})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "forbidden"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8081"}, 200),
        ({"host": "[::1]:8081"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "rebound.example"}, 403),
        ({"host": "localhost.rebound.example"}, 403),
        ({"host": "[oops"}, 403),
        ({"host": "localhost:8081", "origin": "http://localhost:8081"}, 200),
        ({"host": "localhost:8081", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:8081", "origin": "http://localhost:9999"}, 403),
        ({"host": "localhost:8081", "origin": "null"}, 403),
    ],
)
def test_without_a_token_web_pages_do_not_get_in(headers: dict[str, str], status: int) -> None:
    """A page in the operator's browser comes from this machine too: its Host or its Origin tells."""
    one = replica()
    answer = admin(fleet(one)).post("/api/replicas/a:8000/drain", headers=headers)
    assert answer.status_code == status
    assert one.draining == (status == 200)


# ---- the page ----


def test_the_page_stands_alone(client: TestClient) -> None:
    """No foreign parts, and a policy under which only its own script and style run."""
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    assert "unsafe-inline" not in policy
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in answer.text
    assert "innerHTML" not in answer.text


def test_the_page_itself_needs_no_token(replicas: list[Replica]) -> None:
    """It holds no data and asks for the token; a browser cannot send one before it is loaded."""
    client = admin(fleet(*replicas), token="sesame", client=("10.0.0.7", 1))
    page = client.get("/")
    assert page.status_code == 200
    assert "a:8000" not in page.text
    assert client.get("/api/status").status_code == 401


def test_the_page_reads_what_the_status_says(client: TestClient) -> None:
    """Every figure that the page draws is a field of the status document."""
    page = client.get("/").text
    status = json.loads(client.get("/api/status").text)
    drawn = [part.split('"')[1] for part in page.split("figure(f, ")[1:]]
    assert len(drawn) >= 8
    assert set(drawn) <= status["replicas"][0]["figures"].keys()
