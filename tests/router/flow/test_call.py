"""What a client is told of its request besides the answer."""

import json

import pytest

from router.api.errors import NoHealthyReplica, RequestError, RouterDraining, TurnoutError
from router.flow.call import Call, Limits
from tests.support.bare_replicas import replica
from tests.support.exchanges import RecordedExchange


def call_of(exchange: RecordedExchange, total_s: float = 10) -> Call:
    return Call("id-1", exchange, Limits(total_s=total_s))


def test_an_answer_says_where_it_was_made_and_what_the_router_took() -> None:
    """Waiting for replicas is not the router's time."""
    exchange = RecordedExchange()
    call = call_of(exchange)
    call.replica = replica("http://a:8000")
    call.tries = 2
    call.waited_s = 0.2
    call.begin(200, [(b"a", b"b")], 5, exchange.received_at + 0.25)
    assert exchange.answer_headers == {
        "a": "b",
        "x-request-id": "id-1",
        "x-turnout-model": "m",
        "x-turnout-version": "v1",
        "x-turnout-replica": "a:8000",
        "x-turnout-attempts": "2",
        "x-turnout-overhead-ms": "50.00",
    }
    assert (exchange.status, exchange.length, call.status) == (200, 5, 200)
    assert call.overhead_s(exchange.received_at + 100) == pytest.approx(0.05)


def test_overhead_is_never_negative() -> None:
    """Clocks that are read twice may disagree."""
    call = call_of(RecordedExchange())
    call.waited_s = 5
    assert call.overhead_s(call.exchange.received_at + 1) == 0


@pytest.mark.parametrize(
    ("retry_after_s", "seconds", "milliseconds"),
    [(1.0, "1", "1000"), (0.25, "1", "250"), (1.001, "2", "1001"), (59.5, "60", "59500"), (None, None, None)],
)
def test_a_refusal_says_when_to_come_back(
    retry_after_s: float | None, seconds: str | None, milliseconds: str | None
) -> None:
    """Whole seconds, rounded up, for those who know no better."""
    exchange = RecordedExchange()
    call = call_of(exchange)
    call.refuse(NoHealthyReplica("none", retry_after_s=retry_after_s), exchange.received_at)
    assert (exchange.status, exchange.finished, call.answered) == (503, 1, True)
    assert exchange.answer_headers.get("retry-after") == seconds
    assert exchange.answer_headers.get("retry-after-ms") == milliseconds
    assert exchange.answer_headers["x-should-retry"] == "true"
    assert "x-turnout-attempts" not in exchange.answer_headers


@pytest.mark.parametrize(("path", "has_word"), [("/generate", True), ("/", True), ("/v1/completions", False)])
def test_errors_are_in_the_clients_dialect(path: str, has_word: bool) -> None:
    """TGI's clients look for one word more."""
    body = json.loads(call_of(RecordedExchange(path)).body_of(RouterDraining("over")))
    assert body["error"]["code"] == "router_draining"
    assert ("error_type" in body) is has_word


@pytest.mark.parametrize(
    ("said", "deadline_s"), [(None, 10), ("500", 0.5), ("00500", 0.5), ("999999999", 10)]
)
def test_a_client_may_want_its_answer_sooner(said: str | None, deadline_s: float) -> None:
    """Never later than the configuration allows."""
    call = call_of(RecordedExchange())
    call.shorten(said)
    assert call.deadline - call.exchange.received_at == pytest.approx(deadline_s)


@pytest.mark.parametrize(
    "said", ["", "0", "000", "-5", "+5", "1.5", "5 ", "１", "1e3", "soon", "9" * 10, "0" * 60_000]
)
def test_a_time_that_is_none(said: str) -> None:
    """The client's mistake."""
    with pytest.raises(RequestError):
        call_of(RecordedExchange()).shorten(said)


def test_every_error_says_whether_to_try_again() -> None:
    """On the class, for SDKs that retry by themselves."""
    kinds = [TurnoutError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert isinstance(kind.should_retry, bool)
        assert 400 <= kind.status < 600
