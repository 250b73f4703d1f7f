"""Every stream fixture, with and without usage, whole and cut anywhere: the bytes that a client gets."""

from collections.abc import Iterator

import msgspec
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from router.api.request import Endpoint, InferenceRequest
from tests.router.engines.expected import OTHER_DIALECTS, STREAMS, Expected
from tests.router.engines.making import FIXTURES, Seen, engine, fixture, read, request

ROWS = [(kind, row) for kind, rows in STREAMS.items() for row in rows]
IDS = [f"{kind}-{row.fixture}-{row.endpoint.name}" for kind, row in ROWS]
PROMPT = {"prompt": "x" * 34}
MESSAGES = {"messages": [{"role": "user", "content": "Hi!"}]}


def _request(row: Expected, *, include_usage: bool) -> InferenceRequest:
    told = MESSAGES if row.endpoint is Endpoint.CHAT else PROMPT
    return request(row.endpoint, {"stream": True, **told}, include_usage=include_usage, max_tokens=64)


def _seen(kind: str, row: Expected, pieces: list[bytes], *, include_usage: bool = False) -> Seen:
    reader = engine(kind, **dict(row.target)).open_stream(_request(row, include_usage=include_usage))
    return read(reader, pieces)


def _wanted(row: Expected, *, include_usage: bool) -> Seen:
    frames = [*row.frames, *([row.asked] if include_usage and row.asked else [])]
    out = "".join([f"data: {frame}\n\n" for frame in frames])
    done = row.failure is None
    return Seen(
        out=(out + (row.ends if done else "")).encode(),
        started=bool(row.frames),
        done=done,
        usage=row.usage,
        finish_reason=row.finish_reason,
        pieces=row.pieces,
        failure=row.failure,
    )


def test_every_stream_fixture_is_expected() -> None:
    """No recording without a row."""
    recorded = {str(path.relative_to(FIXTURES)) for path in FIXTURES.glob("*/*.sse")}
    expected = {f"{kind}/{row.fixture}" for kind, row in ROWS}
    assert {name for name in recorded if not name.startswith("vllm-recorded/")} == expected | OTHER_DIALECTS


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize(("kind", "row"), ROWS, ids=IDS)
def test_the_client_gets_these_bytes(kind: str, row: Expected, include_usage: bool) -> None:
    """The whole stream in one piece."""
    data = fixture(f"{kind}/{row.fixture}")
    assert _seen(kind, row, [data], include_usage=include_usage) == _wanted(row, include_usage=include_usage)


def _cuts(data: bytes) -> Iterator[list[bytes]]:
    yield [bytes([byte]) for byte in data]
    yield [frame + b"\n\n" for frame in data.split(b"\n\n") if frame]
    for at in range(len(data) + 1):
        yield [data[:at], data[at:]]


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize(("kind", "row"), ROWS, ids=IDS)
def test_the_bytes_do_not_depend_on_where_the_pieces_break(
    kind: str, row: Expected, include_usage: bool
) -> None:
    """Byte by byte, frame by frame, and cut in two at every offset."""
    wanted = _wanted(row, include_usage=include_usage)
    for pieces in _cuts(fixture(f"{kind}/{row.fixture}")):
        assert _seen(kind, row, pieces, include_usage=include_usage) == wanted


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
@pytest.mark.parametrize(("kind", "row"), ROWS, ids=IDS)
def test_other_line_ends_and_a_byte_order_mark_change_nothing(
    kind: str, row: Expected, line_end: bytes
) -> None:
    """The same stream as another server might frame it."""
    data = b"\xef\xbb\xbf" + fixture(f"{kind}/{row.fixture}").replace(b"\n", line_end)
    wanted = _wanted(row, include_usage=True)
    assert _seen(kind, row, [data], include_usage=True) == wanted
    assert _seen(kind, row, [bytes([byte]) for byte in data], include_usage=True) == wanted


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=IDS)
def test_the_openai_library_parses_every_frame(kind: str, row: Expected) -> None:
    """Its own types, strictly; `null` while unfinished is what OpenAI sends for completions, too."""
    out = _seen(kind, row, [fixture(f"{kind}/{row.fixture}")], include_usage=True).out
    for frame in out.split(b"\n\n")[:-1]:
        if frame == b"data: [DONE]" or row.endpoint is Endpoint.GENERATE_STREAM:
            continue
        members = msgspec.json.decode(frame.removeprefix(b"data: "))
        if row.endpoint is Endpoint.CHAT:
            ChatCompletionChunk.model_validate(members)
        else:
            for choice in members["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
            Completion.model_validate(members)


def test_tritons_own_front_end_reads_like_openai() -> None:
    """A role that comes back as null is not said twice."""
    data = fixture("triton/openai_frontend_chat_stream.sse")
    seen = read(engine("vllm").open_stream(request()), [data])
    assert seen.done
    assert seen.finish_reason == "stop"
    assert seen.out.count(b'"role":') == 1
    assert seen.out.count(b'"model":"llama-8b"') == 3


# ---- recordings of a real vLLM 0.32 ----

REAL = sorted(
    path.name
    for path in (FIXTURES / "vllm-recorded").glob("*.sse")
    if path.name.startswith(("chat_", "completions_"))
)
BROKEN = {"chat_stream_aborted.sse", "chat_stream_paused.sse", "chat_stream_engine_dead.sse"}


def _real_request(name: str) -> InferenceRequest:
    endpoint = Endpoint.CHAT if name.startswith("chat") else Endpoint.COMPLETIONS
    if "two_prompts" in name:
        return request(
            endpoint, {"prompt": ["a", "b"], "stream": True}, needs={"batch_prompt"}, include_usage=True
        )
    options = {"include_usage": True, "continuous_usage_stats": "continuous_usage" in name}
    return request(
        endpoint,
        {"prompt": "a", "stream": True, "stream_options": options},
        include_usage=True,
        n=2 if "_n2" in name else 1,
    )


@pytest.mark.parametrize("name", REAL)
def test_a_real_stream_only_changes_the_models_name(name: str) -> None:
    """What vLLM 0.32 sent, with every option recorded, reaches the client as it was."""
    data = fixture(f"vllm-recorded/{name}")
    bound = engine("vllm", served_name="tiny")
    seen = read(bound.open_stream(_real_request(name)), [data])
    renamed = data.replace(b'"model":"tiny"', b'"model":"llama-8b"')
    if name in BROKEN:
        assert seen.failure is not None
        assert renamed.startswith(seen.out)
        assert b"abort" not in seen.out
        assert b"[DONE]" not in seen.out
    else:
        assert seen.out == renamed
        assert seen.done
        assert seen.usage is not None or b'"usage"' not in data
    for at in range(0, len(data), 11):
        assert read(bound.open_stream(_real_request(name)), [data[:at], data[at:]]) == seen
