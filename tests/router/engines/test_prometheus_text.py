import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from router.engines.prometheus_text import Families

FAMILIES = Families(
    "demo", prefixes=["demo_", "demo:"], names=["demo_running", "demo_tokens_total", "demo:usage"]
)


def test_asked_for_samples_are_read_and_others_skipped() -> None:
    """Among help, types, blank lines and other families, in no order."""
    said = FAMILIES.read(
        b"# HELP demo_running Requests, demo_running 99\n"
        b"# TYPE demo_running gauge\n"
        b"demo_running 7\n\n"
        b"other_running 1\n"
        b'demo_wait_bucket{le="+Inf"} 3\n'
        b"demo:usage 0.25"
    )
    assert said.total("demo_running") == 7
    assert said.ratio("demo:usage") == 0.25
    assert said.total("demo_tokens_total") is None


def test_no_suffix_is_guessed() -> None:
    """A longer name, a shorter one and one with `_created` are other samples."""
    said = FAMILIES.read(
        b"demo_tokens 1\ndemo_tokens_total_created 2\ndemo_running_now 3\nx_demo_running 4\ndemo_running5 6\n"
    )
    assert said.total("demo_tokens_total") is None
    assert said.total("demo_running") is None


def test_ranks_are_added_up_or_averaged() -> None:
    """One series per data-parallel rank: counts add up, ratios have a mean."""
    said = FAMILIES.read(
        b'demo_running{rank="0"} 3\ndemo_running{rank="1"} 4\ndemo:usage{rank="0"} 0.2\ndemo:usage{rank="1"} 0.6\n'
    )
    assert said.total("demo_running") == 7
    assert said.total("demo_running", rank="1") == 4
    assert said.total("demo_running", rank="2") is None
    assert said.mean("demo_running") == 3.5
    assert said.ratio("demo:usage") == pytest.approx(0.4)


def test_processes_are_not_ranks() -> None:
    """Each process of a server writes its copy of a gauge; the one that is kept up to date counts."""
    said = FAMILIES.read(
        b'demo_running{pid="11",rank="0"} 0\ndemo_running{pid="12",rank="0"} 5\ndemo_running{pid="12",rank="1"} 2\n'
        b'demo:usage{pid="11"} 0\ndemo:usage{pid="12"} 0.5\n'
    )
    assert said.total("demo_running") == 7
    assert said.ratio("demo:usage") == 0.5


def test_label_values_may_hold_anything() -> None:
    """Braces, quotes, commas, equals signs, backslashes and line feeds, escaped as the format says."""
    said = FAMILIES.read(
        rb'demo_running{a="}{,=\"#",b="C:\\new\n",c="Zo'
        + "ë".encode()
        + rb'" , d = "" ,} 7 1700000000000'
        + b"\n"
    )
    assert said.labels("demo_running") == [{"a": '}{,="#', "b": "C:\\new\n", "c": "Zoë", "d": ""}]
    assert said.total("demo_running", d="") == 7


@pytest.mark.parametrize(
    "tail", [b"", b"\r\n", b" 1700000000\n", b' # {trace="1"} 0.67\n# EOF\n', b"\t\n# EOF"]
)
def test_what_follows_a_value_is_ignored(tail: bytes) -> None:
    """Time stamps, exemplars, carriage returns, the end mark of OpenMetrics, or nothing at all."""
    assert FAMILIES.read(b" \tdemo_running\t 7" + tail).total("demo_running") == 7


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-Inf", b"-1", b"-0.5e3"])
def test_unusable_values_are_unknown(value: bytes) -> None:
    """One of two ranks that says nothing usable leaves the sum unknown: a smaller sum would be a lie."""
    said = FAMILIES.read(b'demo_running{rank="0"} 3\ndemo_running{rank="1"} ' + value + b"\n")
    assert said.total("demo_running") is None
    assert said.mean("demo_running") is None
    assert said.total("demo_running", rank="0") == 3


@pytest.mark.parametrize(("value", "ratio"), [(b"1", 1.0), (b"1.004", 1.0), (b"42", None), (b"1.2", None)])
def test_a_ratio_is_from_0_to_1(value: bytes, ratio: float | None) -> None:
    """A rounding error is forgiven, per cent are not mistaken for a full cache."""
    assert FAMILIES.read(b"demo:usage " + value).ratio("demo:usage") == ratio


def test_lines_that_cannot_be_read_are_as_if_absent() -> None:
    """Broken labels, no value, words for numbers, bytes that are no text: the next line is read all the same."""
    said = FAMILIES.read(
        b'demo_running{rank="0} 1\ndemo_running\ndemo_running seven\ndemo_running{a="\xff"} 2\ndemo_running 7\n'
    )
    assert said.total("demo_running") == 7


@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"# EOF\n", b"# TYPE demo_running gauge\n", b"demo_other 1\n"]
)
def test_an_engine_may_have_nothing_to_say_yet(content: bytes) -> None:
    """Families appear with their first use; that is silence, not an error."""
    assert FAMILIES.read(content).total("demo_running") is None


@pytest.mark.parametrize(
    "content",
    [
        b"<html>demo_running 7</html>",
        b'{"demo_running": 7}',
        b"python_info 1\n",
        b"vllm:running 3\n",
        b"\x00\xff" * 9,
    ],
)
def test_what_is_something_else_is_refused(content: bytes) -> None:
    """A page, JSON, or another program's metrics: the error says whose metrics were expected."""
    with pytest.raises(ValueError, match="not the metrics of demo"):
        FAMILIES.read(content)


@settings(deadline=None)
@given(st.binary() | st.text(alphabet='demo_running:usage{}="\\\n 7NaN').map(str.encode))
def test_no_bytes_break_it(content: bytes) -> None:
    """Whatever comes, the answer is samples or `ValueError`."""
    try:
        said = FAMILIES.read(b"demo_running 7\n" + content)
    except ValueError:
        pytest.fail("a readable sample was there")
    assert said.labels("demo_running")


@pytest.mark.parametrize("hostile", [b'demo_running{a="' + b"x" * 400_000, b'demo_running{a="b",' * 20_000])
def test_a_hostile_body_costs_its_length(hostile: bytes) -> None:
    """Quotes and braces that never close do not make the search start over again and again."""
    assert FAMILIES.read(hostile + b"\ndemo_running 7\n").total("demo_running") == 7


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.integers(0, 1_000_000)),
        min_size=1,
        max_size=6,
        unique_by=lambda p: p[0],
    )
)
def test_agrees_with_the_reference_writer(series: list[tuple[str, int]]) -> None:
    """What prometheus_client writes, as text and as OpenMetrics, comes back label by label."""
    registry = CollectorRegistry()
    running = Gauge("demo_running", "Requests", ["model"], registry=registry)
    tokens = Counter("demo_tokens", "Tokens", ["model"], registry=registry)
    waits = Histogram("demo_wait", "Seconds", ["model"], registry=registry)
    for model, value in series:
        running.labels(model).set(value)
        tokens.labels(model).inc(value)
        waits.labels(model).observe(value)
    for text in (generate_latest(registry), generate_openmetrics(registry)):
        said = FAMILIES.read(text)
        for model, value in series:
            assert said.total("demo_running", model=model) == value
        assert said.total("demo_tokens_total") == sum(value for _, value in series)
