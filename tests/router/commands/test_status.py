"""`turnout status` against real listeners: tables, JSON, and one line for what is wrong."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from click.testing import CliRunner, Result

from router.admin.model_views import ModelView, VersionView
from router.admin.views import (
    ConfigView,
    FiguresView,
    ReplicaView,
    StatusView,
    VerificationView,
)
from router.commands import status as command
from router.commands.status import status
from router.fleet.kv_figures import KvFigures


def replica(replica_id: str, **changes: object) -> ReplicaView:
    view = ReplicaView(
        id=replica_id,
        url=f"http://{replica_id}",
        engine="vllm",
        model="llama",
        version="v1",
        up=True,
        draining=False,
        ready=True,
        weight=1.0,
        in_flight=3,
        waiting_for_first_token=1,
    )
    return msgspec.structs.replace(view, **changes)


def document(*replicas: ReplicaView) -> StatusView:
    version = VersionView(version="v1", names=["llama"], replicas=[], replicas_ready=1, in_flight=3)
    return StatusView(
        turnout_version="0.1.0",
        uptime_s=7200.0,
        ready=True,
        config=ConfigView(generation=2, reload_failed=False),
        models=[ModelView(model="llama", stable="v1", versions=[version])],
        replicas=list(replicas),
    )


class Listener:
    """An admin listener that answers the same to everyone who has the token."""

    def __init__(self, code: int, body: bytes, token: str | None) -> None:
        self.code, self.body, self.token = code, body, token
        self.paths: list[str] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.paths.append(self.path)
                allowed = listener.token in (
                    None,
                    (self.headers["authorization"] or "").removeprefix("Bearer "),
                )
                self.send_response(listener.code if allowed else 401)
                self.send_header("content-length", str(len(listener.body)))
                self.end_headers()
                self.wfile.write(listener.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> "Iterator[Listener]":
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def run(
    body: StatusView | bytes, *arguments: str, code: int = 200, token: str | None = None, **env: str
) -> Result:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    with Listener(code, content, token).running() as listener:
        return CliRunner(env=env).invoke(status, ["--admin", listener.url, *arguments])


def test_what_is_not_verified_is_said_with_its_fields() -> None:
    """In the table as a state, below it as sentences."""
    shown = document(
        replica("gpu-1", up=False, verification=VerificationView(state="mismatch")),
        replica("gpu-2", up=False, verification=VerificationView(state="warming", waits_for="no answer")),
        replica("gpu-3", up=False, verification=VerificationView(state="gone", waits_for="refused")),
    )
    [model] = shown.models
    unverified = {
        "gpu-1": ["is not what its version says: dtype: expected bfloat16, the replica says float16"],
        "gpu-2": ["waits to be verified: no answer"],
    }
    version = msgspec.structs.replace(model.versions[0], unverified=unverified)
    shown = msgspec.structs.replace(shown, models=[msgspec.structs.replace(model, versions=[version])])
    output = run(shown).output
    for name, state in (("gpu-1", "not verified"), ("gpu-2", "warming"), ("gpu-3", "down")):
        assert any(name in line and state in line for line in output.splitlines())
    for name, [complaint] in unverified.items():
        assert f"! {name} (v1) {complaint}" in output


def test_the_table_shows_what_replicas_do() -> None:
    """State, load and all five figures; what the router measured has a star, the unknown a dash."""
    figures = FiguresView(
        running_requests=2,
        waiting_requests=0,
        prefill_tokens_per_s=12345.6,
        decode_tokens_per_s=87.654,
        batch_utilisation=0.25,
        kv_usage_ratio=0.5,
        prefix_hit_ratio=0.75,
        queue_wait_s=0.012,
        from_router=["decode_tokens_per_s"],
        stale=False,
    )
    result = run(
        document(replica("a:8000", figures=figures, max_in_flight=8), replica("b:8000", engine="triton"))
    )
    assert result.exit_code == 0
    [busy] = [line for line in result.output.splitlines() if "a:8000" in line]
    assert [cell.strip() for cell in busy.strip("│").split("│")] == [
        "v1 (stable)", "a:8000", "vllm", "up", "3/8", "2", "0", "12,346", "87.7*", "25%", "50%", "75%", "12 ms",
    ]  # fmt: skip
    [silent] = [line for line in result.output.splitlines() if "b:8000" in line]
    assert silent.count("–") == 8
    assert "measured by this router" in result.output
    assert "up 2 h, configuration 2" in result.output


def test_the_table_shows_who_waits() -> None:
    """Beside the version's name; nothing is said where nobody does."""
    shown = document(replica("a:8000"))
    [model] = shown.models
    [version] = model.versions
    full = msgspec.structs.replace(version, queued=12)
    waiting = msgspec.structs.replace(shown, models=[msgspec.structs.replace(model, versions=[full])])
    assert "v1 (stable) 12 queued" in run(waiting).output
    assert "queued" not in run(shown).output


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (KvFigures(connected=True, events_per_s=12.34), "12.3/s"),
        (KvFigures(connected=True, events_per_s=0, losses=3), "0/s, 3 lost"),
        (KvFigures(losses=3), "not heard"),
        (None, "–"),
    ],
)
def test_kv_events_have_a_column_where_there_are_any(events: KvFigures | None, words: str) -> None:
    """How many come, and what is wrong; a replica that has none has a dash."""
    others = replica("b:8000", kv_events=KvFigures())
    output = run(document(replica("a:8000", kv_events=events), others)).output
    [line] = [line for line in output.splitlines() if "a:8000" in line]
    assert line.strip("│ ").split("│")[-1].strip() == words
    assert "KV events" in output
    assert "KV events" not in run(document(replica("a:8000"))).output


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"up": False, "ready": False}, "down"),
        ({"draining": True, "ready": False}, "draining"),
        ({"draining": True, "ready": False, "in_flight": 0}, "drained"),
        ({"ready": False}, "full"),
    ],
)
def test_a_replica_that_gets_no_requests_says_why(changes: dict[str, object], word: str) -> None:
    """Down, draining, drained and full are told apart."""
    result = run(document(replica("a:8000", **changes)))
    [line] = [line for line in result.output.splitlines() if "a:8000" in line]
    assert f" {word} " in line


def test_warnings_and_a_refused_reload_are_shown() -> None:
    """What an operator must act on stands out below and above the table."""
    broken = msgspec.structs.replace(
        document(replica("a:8000", warnings=["it serves 'x', not 'y' [bold]"])),
        config=ConfigView(generation=2, reload_failed=True),
        ready=False,
    )
    result = run(broken)
    assert "! a:8000 (v1): it serves 'x', not 'y' [bold]" in result.output
    assert "last reload refused" in result.output
    assert "no replica is ready" in result.output


def test_json_is_the_document_itself() -> None:
    """For scripts: one line, as the listener sent it."""
    body = msgspec.json.encode(document(replica("a:8000")))
    result = run(body, "--json")
    assert result.exit_code == 0
    assert result.output == body.decode() + "\n"


def test_the_token_comes_from_the_option_or_the_environment() -> None:
    """Either works; without it the one line says what to do."""
    body = document(replica("a:8000"))
    assert run(body, "--token", "sesame", token="sesame").exit_code == 0
    assert run(body, token="sesame", TURNOUT_ADMIN_TOKEN="sesame").exit_code == 0
    refused = run(body, token="sesame")
    assert refused.exit_code == 1
    assert "TURNOUT_ADMIN_TOKEN" in refused.output


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (
            403,
            b'{"error": {"message": "only clients on this machine"}}',
            "answered 403: only clients on this machine",
        ),
        (500, b"[]", "answered 500"),
        (200, b"<html>", "is no Turnout admin listener"),
        (200, b'{"ready": true}', "is no Turnout admin listener"),
        (200, b"\xff", "is no Turnout admin listener"),
    ],
)
def test_wrong_answers_are_one_line(code: int, body: bytes, words: str) -> None:
    """Exit code 1, no traceback, and what was wrong."""
    result = run(body, code=code)
    assert result.exit_code == 1
    assert words in result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("flags", [[], ["--json"], ["--watch"]])
def test_no_answer_is_one_line(flags: list[str]) -> None:
    """Nobody listens: exit code 1 in every mode."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = CliRunner().invoke(status, ["--admin", url, *flags])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: no answer from {url}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://[", "ftp://x"])
def test_a_bad_address_is_one_line(url: str) -> None:
    """What is no URL gets no traceback either."""
    result = CliRunner().invoke(status, ["--admin", url])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")


def test_watching_goes_on_until_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refreshes, survives a listener that fails for a while, and ends quietly on Ctrl-C."""
    content = msgspec.json.encode(document(replica("a:8000")))
    with Listener(200, content, None).running() as listener:
        rounds = iter(range(100))

        def sleep(_: float) -> None:
            number = next(rounds)
            listener.code = 503 if number == 1 else 200
            if number == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(command.time, "sleep", sleep)
        result = CliRunner().invoke(status, ["--admin", listener.url, "--watch"])
        assert len(listener.paths) == 4
    assert result.exit_code == 0
    assert "a:8000" in result.output


def test_watching_json_prints_a_line_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For scripts that follow: JSON Lines."""
    content = msgspec.json.encode(document(replica("a:8000")))
    rounds = iter(range(100))

    def sleep(_: float) -> None:
        if next(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", sleep)
    with Listener(200, content, None).running() as listener:
        result = CliRunner().invoke(status, ["--admin", listener.url, "--watch", "--json"])
    assert [json.loads(line)["ready"] for line in result.output.splitlines() if line.startswith("{")] == [
        True
    ] * 3
