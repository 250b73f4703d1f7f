"""The pages that the router answers by itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.flow.inference import ENDPOINTS
from router.serving.app import PublicPages, public_app
from tests.support.bare_replicas import fleet, replica


class Pages:
    """The public app over a fleet that a test may change."""

    def __init__(self, current: Fleet) -> None:
        self.fleet = current
        self.draining = False
        pages = PublicPages(lambda: self.fleet, lambda: self.draining)
        self.client = TestClient(
            public_app(pages, self._inference),  # type: ignore[arg-type]
            base_url="http://router",
            raise_server_exceptions=False,
        )

    async def _inference(self, scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("a secret of the router's")


@pytest.fixture
def replicas() -> list[Replica]:
    return [replica("http://a:8000"), replica("http://b:8000", version="v2")]


@pytest.fixture
def pages(replicas: list[Replica]) -> Iterator[Pages]:
    yield Pages(fleet(*replicas))


def test_liveness_has_nothing_to_do_with_replicas(pages: Pages, replicas: list[Replica]) -> None:
    """A router without a fleet, or on its way out, is alive."""
    for each in replicas:
        each.up = False
    pages.draining = True
    answer = pages.client.get("/livez")
    assert (answer.status_code, answer.text) == (200, "alive\n")


@pytest.mark.parametrize("path", ["/readyz", "/health"])
def test_readiness(pages: Pages, replicas: list[Replica], path: str) -> None:
    """One ready replica of any version is enough; none is not, and neither is a router that drains."""
    assert pages.client.get(path).text == "ready\n"
    replicas[0].up = False
    assert pages.client.get(path).status_code == 200
    replicas[1].draining = True
    answer = pages.client.get(path)
    assert (answer.status_code, answer.text) == (503, "no replica is ready\n")
    replicas[1].draining = False
    pages.draining = True
    answer = pages.client.get(path)
    assert (answer.status_code, answer.text) == (503, "draining\n")


def test_models(pages: Pages) -> None:
    """Every public name once, with the model it leads to; a new fleet is seen at once."""
    listed = pages.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {model["id"]: model["root"] for model in listed["data"]} == dict(pages.fleet.names)
    for model in listed["data"]:
        assert pages.client.get(f"/v1/models/{model['id']}").json() == model
        assert (model["object"], model["owned_by"]) == ("model", "turnout")
        assert isinstance(model["created"], int)
    pages.fleet = Fleet({}, {}, {}, [])
    assert pages.client.get("/v1/models").json()["data"] == []


@pytest.mark.parametrize("name", ["nobody", "m@v9", "org/nobody", "", "%00", "x" * 5000])
def test_a_model_that_does_not_exist(pages: Pages, name: str) -> None:
    """The contract's error, and no more of a long name than is needed."""
    answer = pages.client.get(f"/v1/models/{name}")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert len(answer.text) < 1000


def test_info(pages: Pages) -> None:
    """TGI's page, for the clients that look at it first."""
    assert pages.client.get("/info").json()["model_id"] == "m"
    pages.fleet = Fleet({}, {}, {}, [])
    assert pages.client.get("/info").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *[("GET", path, {"POST"}) for path in sorted(ENDPOINTS)],
        *[("POST", path, {"GET", "HEAD"}) for path in ("/livez", "/v1/models", "/v1/models/m", "/info")],
        ("DELETE", "/v1/models/m", {"GET", "HEAD"}),
        ("OPTIONS", "/v1/chat/completions", {"POST"}),
    ],
)
def test_methods_that_are_not_allowed(pages: Pages, method: str, path: str, allowed: set[str]) -> None:
    """405 in the contract's words, and which ones are."""
    answer = pages.client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/livez/",
        "/v1/chat/completions/",
        "//v1/models",
        "/V1/models",
        "/metrics",
        "/api/status",
    ],
)
def test_paths_that_do_not_exist(pages: Pages, path: str) -> None:
    """Nothing is guessed and nobody is sent elsewhere; the admin listener's pages are not here."""
    answer = pages.client.get(path, follow_redirects=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_heads_are_answered_without_a_body(pages: Pages) -> None:
    """Some load balancers probe so."""
    answer = pages.client.head("/readyz")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_defect_gives_nothing_away(pages: Pages) -> None:
    """A 500 in the contract's words."""
    answer = pages.client.post("/v1/chat/completions", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
