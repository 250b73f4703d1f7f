"""Damaged requests and damaged answers: never a 500, a hang, a complaint in a log, or anything left behind."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import pytest

from router.serving import front
from tests.support.front_ends import nothing_open
from tests.support.loops import run_strictly
from tests.support.mutations import EVENTS, JSON, WIRE, mutated, pieces
from tests.support.peers import LAST_CHUNK, PeerConnection, answer, chunk, scripted_peer
from tests.support.raw_client import CHAT, STREAMED_CHAT, RawAnswer, get, post, raw_client
from tests.support.routers import config_text, running_router
from tests.support.scripted_server import until
from tests.support.simulated import simulated_fleet
from tests.support.wire import FIXTURES, recorded

AT_ONCE = 25
QUIET = "[health]\ninterval_s = 60\n[scrape]\ninterval_s = 60\n[timeouts]\nfirst_token_s = 0.4\nbetween_tokens_s = 0.4\ntotal_s = 1"
HASTY = "head_timeout_s = 0.3\nbody_timeout_s = 0.3\nkeep_alive_s = 0.3\nmax_body_bytes = 65536"

on_both_loops = pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])


@pytest.fixture(autouse=True)
def often_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are looked at every second; the tests need not wait for that."""
    monkeypatch.setattr(front, "_SWEEP_S", 0.05)


# ---- damaged requests ----

BODIES = {
    b"/v1/chat/completions": CHAT,
    b"/v1/completions": b'{"model":"m","prompt":"p","max_tokens":4,"stream":true,"stream_options":{"include_usage":true}}',
    b"/v1/embeddings": b'{"model":"m","input":["a","b"]}',
    b"/v1/responses": b'{"model":"m","input":"hello","max_output_tokens":8}',
    b"/v1/messages": b'{"model":"m","max_tokens":8,"messages":[{"role":"user","content":"hi"}]}',
    b"/tokenize": b'{"model":"m","prompt":"some words"}',
    b"/rerank": b'{"model":"m","query":"q","documents":["d","e"]}',
    b"/generate": b'{"inputs":"p","parameters":{"max_new_tokens":4,"details":true,"do_sample":true,"stop":["x"]}}',
    b"/generate_stream": b'{"inputs":"p","parameters":{"max_new_tokens":4,"return_full_text":true}}',
    b"/": b'{"inputs":"p","stream":true,"parameters":null}',
}
TOOLS = b'"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"auto","n":1,"stop":"x"}'
CHUNKED = post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
REQUESTS = (
    *(post(body, path=path) for path, body in BODIES.items()),
    post(STREAMED_CHAT, headers=b"x-request-id: mine\r\nx-session-id: s\r\ntraceparent: 00-1-2-03\r\n"),
    CHUNKED + chunk(CHAT[:20]) + chunk(CHAT[20:]) + LAST_CHUNK,
    CHUNKED + b"5;name=value\r\n" + CHAT[:5] + b"\r\n" + chunk(CHAT[5:]) + b"0\r\ntrailer: x\r\n\r\n",
    post().replace(b"HTTP/1.1", b"HTTP/1.0"),
    post(headers=b"expect: 100-continue\r\n"),
    post() + post(STREAMED_CHAT) + get(b"/livez"),
    get(b"/v1/models") + post(path=b"/nowhere") + post(),
    get(b"/v1/models/m@v1?x=%20&y"),
)  # fmt: skip
MAY_BE_TOLD = {200, 400, 404, 405, 408, 413, 415, 431, 501}


def damaged_request(random: Random) -> bytes:
    """A request whose body alone is damaged and framed soundly, or one that is damaged anywhere."""
    if random.random() < 0.4:
        path, body = random.choice([*BODIES.items(), (b"/v1/chat/completions", CHAT[:-1] + b"," + TOOLS)])
        return post(mutated(body, JSON, random), path=path)
    return mutated(random.choice(REQUESTS), WIRE, random)


async def said_to(port: int, data: bytes, random: Random) -> tuple[bytes, bool]:
    """All that is answered to `data` until the connection ends, and whether it ended in good order."""
    said = b""
    async with raw_client(port) as client:
        try:
            for piece in pieces(data, random):
                await client.send(piece)
                await asyncio.sleep(0)
            async with asyncio.timeout(20):
                while more := await client.reader.read(65536):
                    said += more
        except ConnectionError:
            return said, False
        except TimeoutError as error:
            error.add_note(f"no end after {data!r}, but {said!r}")
            raise
    return said, True


def answers_in(said: bytes) -> list[RawAnswer]:
    """The answers on a connection that has ended, interim ones left out. Fails for what is no HTTP or cut."""
    found = []
    while said:
        head, end, said = said.partition(b"\r\n\r\n")
        assert end, head
        first, *lines = head.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1.1 "), first
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split(" ")[1])
        if status >= 200:
            body, said = _body_of(headers, said)
            found.append(RawAnswer(status, headers, body))
    return found


def _body_of(headers: dict[str, str], data: bytes) -> tuple[bytes, bytes]:
    if "content-length" in headers:
        length = int(headers["content-length"])
        assert len(data) >= length
        return data[:length], data[length:]
    if headers.get("transfer-encoding") != "chunked":
        return data, b""
    body = b""
    while True:
        size, end, data = data.partition(b"\r\n")
        length = int(size, 16)
        assert end
        assert data[length : length + 2] == b"\r\n"
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body, data


@on_both_loops
@pytest.mark.parametrize("count", [400, pytest.param(8000, marks=pytest.mark.slow)])
def test_damaged_requests(count: int, uv: bool) -> None:
    """Each gets answers of 200 or 4xx, well-formed ones and no others, until its connection ends."""
    statuses: Counter[int] = Counter()

    async def run() -> None:
        async with simulated_fleet("vllm", "tgi", more=QUIET, server=HASTY) as fleet:
            numbers = iter(range(count))

            async def knock() -> None:
                for number in numbers:
                    random = Random(f"{count} {number}")
                    data = damaged_request(random)
                    said, ended_well = await said_to(fleet.running.port, data, random)
                    if ended_well:
                        check_answers(data, said, statuses)

            await asyncio.gather(*(knock() for _ in range(AT_ONCE)))
            await until(lambda: nothing_open(fleet.running.router))
            await until(lambda: fleet.running.router.front_end.open_connections == 0)

    run_strictly(run(), uv=uv)
    print(f"\n{dict(sorted(statuses.items()))}")
    assert {200, 400} <= statuses.keys()


def check_answers(data: bytes, said: bytes, statuses: Counter[int]) -> None:
    try:
        for given in answers_in(said):
            assert given.status in MAY_BE_TOLD, given.body
            statuses[given.status] += 1
            if given.headers.get("content-type", "").startswith("text/event-stream"):
                assert_ended_once(given.events)
            elif given.status != 200 and given.headers.get("content-type") == "application/json":
                assert given.code
    except Exception as error:
        error.add_note(f"after {data!r} came {said!r}")
        raise


def assert_ended_once(events: list[bytes]) -> None:
    """JSON throughout; the end is `[DONE]`, or one error, or TGI's whole text; nothing else is."""
    *before, last = events
    assert not any(event == b"[DONE]" or "error" in json.loads(event) for event in before)
    assert last == b"[DONE]" or not {"error", "generated_text"}.isdisjoint(json.loads(last))


# ---- damaged answers ----

ERRORS = (
    b'{"error":{"message":"oh","type":"x","param":null,"code":400}}',
    b'{"object":"error","message":"maximum context length","code":400}',
    b'{"detail":[{"loc":["body"],"msg":"no"}]}',
    b'{"error":"Model is overloaded","error_type":"overloaded"}',
    b"Internal Server Error",
)
GENERATED = b'{"generated_text":"x","details":{"finish_reason":"length","generated_tokens":1,"prefill":[],"tokens":[]}}'
WHOLE = {
    b"chat": (recorded("vllm/chat_full.json"), recorded("vllm-recorded/chat_tool_named.json")),
    b"completions": (
        recorded("vllm-recorded/completions.json"),
        recorded("vllm-recorded/completions_n2.json"),
    ),
    b"generate": (GENERATED,),
}
FOLDERS = {"vllm": ("vllm", "vllm-recorded"), "tgi": ("tgi",), "trtllm": ("trtllm",), "triton": ("triton",)}
STREAMS = {
    (dialect, kind): tuple(
        recorded(str(path.relative_to(FIXTURES)))
        for folder in folders
        for path in sorted((FIXTURES / folder).glob(f"{kind.decode()}*.sse"))
    )
    for dialect, folders in FOLDERS.items()
    for kind in WHOLE
}


def kind_of(path: bytes) -> bytes:
    """Which kind of answer belongs to an engine's path."""
    return next((kind for kind in (b"chat", b"completions") if b"/%b" % kind in path), b"generate")


STATUS_LINES = (b"200 OK",) * 12 + (
    b"400 Bad",
    b"404 No",
    b"422 No",
    b"429 Full",
    b"500 No",
    b"503 No",
    b"302 Go",
    b"204 No",
)
QUESTIONS = {
    b"/v1/chat/completions": b'{"messages":[{"role":"user","content":"hi"}]',
    b"/v1/completions": b'{"prompt":"p"',
    b"/generate": b'{"inputs":"p","parameters":{"details":true}',
    b"/generate_stream": b'{"inputs":"p"',
}


def damaged_answer(dialect: str, path: bytes, *, streams: bool, random: Random) -> bytes:
    """An answer of an engine that is sound, damaged in its body, or damaged anywhere."""
    status = random.choice(STATUS_LINES)
    sound = STREAMS[dialect, kind_of(path)] if streams else WHOLE[kind_of(path)]
    body = random.choice(sound or ERRORS) if status.startswith(b"2") else random.choice(ERRORS)
    if random.random() < 0.6:
        body = mutated(body, EVENTS if streams else JSON, random)
    media_type = b"text/event-stream" if streams else b"application/json"
    if random.random() < 0.05:
        media_type = random.choice((b"text/html", b"application/json", b"", b"text/event-stream"))
    head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\n" % (status, media_type)
    framing = random.random()
    if framing < 0.6:
        framed = b"".join(map(chunk, filter(None, pieces(body, random))))
        whole = head + b"transfer-encoding: chunked\r\n\r\n" + framed + LAST_CHUNK
    elif framing < 0.9:
        whole = head + b"content-length: %d\r\n\r\n" % len(body) + body
    else:
        whole = head + b"\r\n" + body
    return mutated(whole, WIRE, random) if random.random() < 0.3 else whole


class DamagedReplica:
    """Answers inference requests with damage, by the seed in the request; everything else is in order."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect

    async def script(self, connection: PeerConnection) -> None:
        while True:
            head, body = await connection.request()
            if not head.startswith(b"POST "):
                await connection.send(answer(b""))
                continue
            random = Random(head.partition(b"x-request-id: ")[2].partition(b"-")[0].decode())
            path = head.split(b" ")[1]
            streams = b'"stream":true' in body or path.endswith(b"_stream")
            for piece in pieces(damaged_answer(self._dialect, path, streams=streams, random=random), random):
                await connection.send(piece)
                await asyncio.sleep(0)
            how = random.random()
            if how < 0.3:
                connection.reset()
            elif how < 0.5:
                await connection.closed_by_peer()
            if how < 0.8:
                return


@contextlib.asynccontextmanager
async def router_before(dialect: str) -> AsyncIterator[int]:
    """The port of a router whose one replica is damaged; nothing may be left in it."""
    async with scripted_peer(DamagedReplica(dialect).script) as peer:
        replica = f'url = "{peer.url}", engine = "{dialect}"'
        if dialect == "triton":
            replica += ', model_name = "tensorrt_llm", chat_template = "{{ messages[0].content }}"'
        async with running_router(config_text(replica, more=QUIET)) as running:
            yield running.port
            await until(lambda: nothing_open(running.router))
            await until(lambda: running.router.front_end.open_connections == 0)


@pytest.mark.parametrize("dialect", sorted(FOLDERS))
@pytest.mark.parametrize("count", [200, pytest.param(4000, marks=pytest.mark.slow)])
def test_damaged_answers(dialect: str, count: int) -> None:
    """The client gets one well-formed answer; a stream that has begun ends in `[DONE]` or in one error."""
    outcomes: Counter[str] = Counter()

    async def run() -> None:
        async with router_before(dialect) as port:
            numbers = iter(range(count))

            async def ask() -> None:
                async with raw_client(port) as client:
                    for number in numbers:
                        random = Random(number)
                        path, question = random.choice(list(QUESTIONS.items()))
                        streams = path.endswith(b"_stream") or (
                            path.startswith(b"/v1") and random.random() < 0.6
                        )
                        more = b',"model":"m"' + (
                            b',"stream":true}' if streams and b"_" not in path else b"}"
                        )
                        seed = b"x-request-id: %b.%d.%d\r\n" % (dialect.encode(), count, number)
                        await client.send(post(question + more, path=path, headers=seed))
                        try:
                            outcomes[checked(await client.answer(), streams=streams)] += 1
                        except Exception as error:
                            error.add_note(
                                f"the seed was {seed!r}, the request {question + more!r} to {path!r}"
                            )
                            raise

            await asyncio.gather(*(ask() for _ in range(AT_ONCE)))

    run_strictly(run())
    print(f"\n{dict(sorted(outcomes.items()))}")
    assert len(outcomes) > 3


def checked(given: RawAnswer, *, streams: bool) -> str:
    """What became of it, in a word."""
    if given.status != 200:
        assert given.status in {400, 404, 413, 501, 502, 503, 504}, given.body
        return given.code
    if not streams:
        members = json.loads(given.body)
        assert isinstance(members, dict)
        assert "choices" in members or "generated_text" in members
        return "answer"
    assert_ended_once(given.events)
    return "error frame" if b'"error"' in given.events[-1] else "stream"
