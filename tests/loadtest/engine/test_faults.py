import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.engine.dialect import Request
from loadtest.engine.faults import HEAD, START, Fault, FaultBook, Kind, due, parse_faults


def request(
    body: bytes = b"", path: str = "/v1/completions", method: str = "POST", **headers: str
) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, {}, named, body)


@pytest.mark.parametrize(
    ("text", "kind", "value", "at"),
    [
        ("reset", Kind.RESET, None, START),
        ("reset@head", Kind.RESET, None, HEAD),
        ("reset@5", Kind.RESET, None, 5),
        ("error", Kind.ERROR, None, HEAD),
        ("error@3", Kind.ERROR, None, 3),
        ("status=503", Kind.STATUS, 503, START),
        ("status", Kind.STATUS, 500, START),
        ("hang=1.5@2", Kind.HANG, 1.5, 2),
        ("drip=0.01@head", Kind.DRIP, 0.01, HEAD),
        ("slow=3", Kind.SLOW, 3, START),
        ("end@0", Kind.END, None, HEAD),
    ],
)
def test_reading_a_fault(text: str, kind: Kind, value: float | None, at: int) -> None:
    """Kind, value and phase as written, with the kind's own defaults."""
    (fault,) = parse_faults(text)
    assert (fault.kind, fault.value, fault.at, fault.text) == (kind, value, at, text)


def test_reading_a_script() -> None:
    """Several faults with options, in order."""
    first, second = parse_faults("hang=0.1@1;p=0.5;times=2, reset@5;path=/v1/chat")
    assert (first.probability, first.times, first.path) == (0.5, 2, None)
    assert (second.kind, second.path) == (Kind.RESET, "/v1/chat")


@pytest.mark.parametrize(
    "text",
    ["resett", "reset@soon", "status=503@4", "hang=long", "reset;often=1", "reset;p", "oversize_head@head"],
)
def test_bad_faults_are_named(text: str) -> None:
    """A mistake is refused with the fault it is in."""
    with pytest.raises(ValueError, match="fault"):
        parse_faults(f"error,{text}")


def test_markers_in_header_and_body() -> None:
    """A request brings its own faults, in a header or anywhere in its body."""
    book = FaultBook()
    assert [fault.kind for fault in book.for_request(request(x_fault="reset@5"))] == [Kind.RESET]
    body = b'{"prompt":"a [[fault:abort@2,no_done]] b"}'
    assert [fault.kind for fault in book.for_request(request(body))] == [Kind.ABORT, Kind.NO_DONE]
    assert book.for_request(request(b"[[fault]]")) == ()


def test_a_request_cannot_bring_what_only_a_port_has() -> None:
    """Refusing connections is no property of a request."""
    with pytest.raises(ValueError, match="whole port"):
        FaultBook().for_request(request(x_fault="refuse"))


def test_port_scripts_hit_generation_requests_or_a_path() -> None:
    """Without a path only POSTs are hit, so that health stays good; with a path, what begins with it."""
    book = FaultBook()
    book.set("status=500", "reset;path=/metrics")
    assert [fault.kind for fault in book.for_request(request())] == [Kind.STATUS]
    assert book.for_request(request(path="/health", method="GET")) == ()
    assert [fault.kind for fault in book.for_request(request(path="/metrics", method="GET"))] == [Kind.RESET]


def test_times_is_a_limit() -> None:
    """After so many hits a fault is over, also one that requests bring themselves."""
    book = FaultBook()
    book.set("reset;times=2")
    assert [len(book.for_request(request())) for _ in range(4)] == [1, 1, 0, 0]
    assert [len(book.for_request(request(x_fault="end;times=1"))) for _ in range(3)] == [1, 0, 0]
    book.set("reset;times=2")
    assert len(book.for_request(request())) == 1


def test_chance_is_seeded_and_fair() -> None:
    """Equal seeds strike equally, and as often as they say."""

    def strikes(seed: int) -> list[int]:
        book = FaultBook()
        book.set("reset;p=0.3", seed=seed)
        return [len(book.for_request(request())) for _ in range(2_000)]

    assert strikes(1) == strikes(1) != strikes(2)
    assert 500 < sum(strikes(1)) < 700


def test_changes_are_told_and_bad_ones_change_nothing() -> None:
    """Who listens hears of every change; a mistake leaves the script as it was."""
    book, calls = FaultBook(), []
    book.on_change = lambda: calls.append(book.script)
    book.set("slow=2,stall")
    assert book.port(Kind.SLOW) == Fault(Kind.SLOW, 2.0, text="slow=2")
    with pytest.raises(ValueError, match="fault"):
        book.set("nonsense")
    assert len(book.script) == 2
    book.clear()
    assert [len(script) for script in calls] == [2, 0]


@given(st.lists(st.integers(-1, 8), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_every_phase_comes_due_exactly_once(phases: list[int], tokens: list[int]) -> None:
    """However tokens are bundled, each fault that is reached is due once."""
    script = [Fault(Kind.HANG, at=at) for at in phases]
    struck = [*due(script, START - 1, START), *due(script, START, HEAD)]
    count = 0
    for more in tokens:
        struck += due(script, count, count + more)
        count += more
    assert sorted(fault.at for fault in struck) == sorted(at for at in phases if at <= count)
