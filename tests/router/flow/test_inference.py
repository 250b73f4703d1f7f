"""What comes out of every exchange that goes in: one answer, one event."""

import json
import logging
import time

import pytest

from router.api.errors import BodyTooLarge
from router.flow.inference import ENDPOINTS
from tests.support.exchanges import RecordedExchange
from tests.support.flow import WHOLE, Flow, answers, hang, plays, streamed, through, whole
from tests.support.peers import PeerConnection, answer
from tests.support.raw_client import CHAT
from tests.support.scripted_server import until


@pytest.mark.parametrize(
    ("exchange", "status", "code"),
    [
        (RecordedExchange(body=b"{"), 400, "invalid_json"),
        (RecordedExchange(body=CHAT.replace(b'"m"', b'"n"')), 404, "model_not_found"),
        (RecordedExchange(body=CHAT, headers={"content-type": "text/plain"}), 415, "unsupported_media_type"),
        (RecordedExchange("/v1/embeddings", CHAT + b"}"), 400, "invalid_json"),
        (RecordedExchange("/nowhere", CHAT), 404, "not_found"),
    ],
)
def test_a_refusal_is_one_answer_and_one_event(exchange: RecordedExchange, status: int, code: str) -> None:
    """Nothing is sent to a replica; the event has no model that does not exist."""

    async def test(flow: Flow) -> None:
        event = await flow.serve(exchange)
        assert (exchange.status, exchange.finished, exchange.aborted) == (status, 1, 0)
        assert json.loads(exchange.text)["error"]["code"] == code
        assert exchange.answer_headers["x-should-retry"] == "false"
        assert exchange.answer_headers["content-type"] == "application/json"
        assert exchange.length == len(exchange.text)
        assert (event.status, event.outcome, event.model, event.replica) == (status, code, "", "")
        assert event.error == json.loads(exchange.text)["error"]["message"]
        assert event.attempts == []
        assert flow.connections == [0]

    through(test, answers())


def test_a_request_that_could_not_be_read_is_an_event_too() -> None:
    """Front ends refuse through the same door."""

    async def test(flow: Flow) -> None:
        exchange = RecordedExchange(headers={"x-request-id": "mine"})
        flow.router.inference.refuse(exchange, BodyTooLarge("too large"))
        (event,) = flow.events
        assert (exchange.status, exchange.finished) == (413, 1)
        assert (event.request_id, event.outcome, event.status) == ("mine", "body_too_large", 413)

    through(test, answers())


def test_a_client_that_is_gone_before_anything_began() -> None:
    """No attempt, no answer, one event."""

    async def test(flow: Flow) -> None:
        exchange = whole()
        exchange.leave()
        event = await flow.serve(exchange)
        assert (event.outcome, event.status, event.attempts) == ("client_left", 499, [])
        assert (exchange.status, exchange.finished) == (None, 0)
        assert flow.connections == [0]

    through(test, answers())


def test_a_client_that_has_gone_is_not_refused() -> None:
    """A bad request of somebody who does not wait for what is wrong with it."""

    async def test(flow: Flow) -> None:
        exchange = RecordedExchange(body=b"{")
        exchange.leave()
        event = await flow.serve(exchange)
        assert (event.outcome, exchange.status) == ("client_left", None)

    through(test, answers())


def test_request_ids() -> None:
    """The client's if it is usable, else one of the router's; a suffix per attempt goes upstream."""
    seen: list[bytes] = []

    async def script(connection: PeerConnection) -> None:
        while True:
            head, _body = await connection.request()
            seen.extend(line for line in head.split(b"\r\n") if line.startswith(b"x-request-id"))
            await connection.send(answer(WHOLE))

    async def test(flow: Flow) -> None:
        for offered in ("mine", "not usable", None):
            headers = {} if offered is None else {"x-request-id": offered}
            exchange = RecordedExchange(body=CHAT, headers=headers)
            event = await flow.serve(exchange)
            assert exchange.answer_headers["x-request-id"] == event.request_id
            assert (event.request_id == offered) is (offered == "mine")
            assert seen[-1] == b"x-request-id: %b-1" % event.request_id.encode()
        assert len(set(seen)) == 3

    through(test, script)


def test_a_defect_of_the_router_is_a_500_that_the_log_explains(caplog: pytest.LogCaptureFixture) -> None:
    """The client reads nothing of it, the slot is given back, and the event names it."""

    class Defective:
        kind = "vllm"
        offers = frozenset({"chat"})

        def to_upstream(self, request: object) -> object:
            raise ZeroDivisionError("secret detail")

    async def test(flow: Flow) -> None:
        flow.router.fleet.replicas[0].engine = Defective()  # type: ignore[assignment]
        exchange = whole()
        with caplog.at_level(logging.CRITICAL, "turnout.flow"):  # it is looked for below, not by the loop
            event = await flow.serve(exchange)
        assert (exchange.status, event.outcome) == (500, "internal_error")
        assert "secret" not in exchange.text

    through(test, answers())


def test_the_event_tells_when_the_request_came() -> None:
    """Not when it was over: a long stream would be logged an age too late."""

    async def test(flow: Flow) -> None:
        exchange = streamed()
        exchange.received_at -= 100
        serving = flow.begin(exchange)
        await until(lambda: len(flow.router.watch) == 1)
        exchange.leave()
        await serving
        (event,) = flow.events
        assert event.duration_s >= 100

        assert 99 < time.time() - event.at < 160

    through(test, plays(then=hang))


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
def test_every_endpoint_answers_nonsense_with_a_refusal(path: str) -> None:
    """Whatever is posted there, it is the client's mistake."""

    async def test(flow: Flow) -> None:
        for body in (b"", b"{}", b"[]", b"null", b'{"model":"m"}', b'{"model":7}', b'{"inputs":{}}'):
            exchange = RecordedExchange(path, body)
            await flow.serve(exchange)
            assert exchange.finished == 1
            assert exchange.status in (400, 501)

    through(test, plays(answer(b'{"error":{"message":"no"}}', status=b"400 Bad Request")))
