"""Records what a real vLLM sends, for the fixtures: `python -m tests.real_vllm.record`.

Bodies are kept byte for byte; status, header order and chunk sizes go to `exchanges.json` and `errors.json`.
"""

import argparse
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.real_vllm import cases
from tests.real_vllm.environment import REPOSITORY
from tests.real_vllm.replicas import Replica, ReplicaFailed, missing, start, wait
from tests.real_vllm.wire import Answer, Request, ask, get, post

FIXTURES = REPOSITORY / "tests" / "fixtures" / "engines" / "vllm-recorded"

OPENED_OPTIONS = (
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--enable-scale-out", "--api-key", cases.KEY),
    *("--max-num-queued-reqs", "2", "--shutdown-timeout", "30"),
)
DEVELOPER_MODE = (("VLLM_SERVER_DEV_MODE", "1"),)

CALL_WORDS = '{"metric": true}</tool_call> {"metric":true}}</tool_call>}}\n</'
LONGEST_SHOWN_BYTES = 2000
UNDER_WAY_TOKENS = 8


class Recording:
    """The folder being filled, with its two indexes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exchanges: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []

    def keep(self, name: str, request: Request, answer: Answer) -> None:
        """A good answer: its body becomes a file named after its type."""
        if answer.status != 200:
            raise ReplicaFailed(f"{name}: {answer.status} {answer.body.decode(errors='replace')}")
        entry = described(name, request, answer)
        if answer.body:
            entry["file"] = f"{name}.{extension(answer)}"
            (self.folder / entry["file"]).write_bytes(answer.body)
        self.exchanges.append(entry)

    def keep_error(self, name: str, request: Request, answer: Answer) -> None:
        if answer.status < 400:
            raise ReplicaFailed(f"{name}: expected an error, got {answer.status}")
        self.keep_any(name, request, answer)

    def keep_any(self, name: str, request: Request, answer: Answer) -> None:
        """Whatever came, with its body beside its head; a stream may carry its error inside a 200."""
        self.errors.append({**described(name, request, answer), "body": answer.body.decode()})

    def close(self) -> None:
        for name, entries in (("exchanges", self.exchanges), ("errors", self.errors)):
            text = json.dumps(entries, indent=1, ensure_ascii=False)
            (self.folder / f"{name}.json").write_text(text + "\n")


def described(name: str, request: Request, answer: Answer) -> dict[str, Any]:
    asked: dict[str, Any] = {"method": request.method, "path": request.path, "headers": request.headers}
    content = request.content()
    if len(content) > LONGEST_SHOWN_BYTES:
        asked["body_bytes"] = len(content)
    elif isinstance(request.body, bytes):
        asked["body_text"] = content.decode(errors="backslashreplace")
    elif request.body is not None:
        asked["body"] = request.body
    return {
        "case": name,
        "request": asked,
        "status": answer.status,
        "headers": answer.headers,
        "chunks": answer.chunks,
        "complete": answer.complete,
    }


def extension(answer: Answer) -> str:
    kinds = {"text/event-stream": "sse", "application/json": "json", "text/plain": "prom"}
    return kinds[(answer.header("content-type") or "").partition(";")[0]]


def record(recording: Recording, plain: Replica, opened: Replica, say: Callable[[str], None]) -> None:
    """Everything, the engine's death last. Raises `ReplicaFailed` where an answer is of the wrong kind."""
    say("metrics of fresh replica, streams and answers")
    _keep_all(recording, plain, (("metrics_fresh", get("/metrics", cases.REQUEST_ID)),))
    _keep_all(recording, plain, (*cases.STREAMS, *cases.ANSWERS))
    say("errors")
    for name, request in cases.BAD_REQUESTS:
        recording.keep_error(name, request, ask(plain.port, request))
    for name, request in cases.NO_KEY:
        recording.keep_error(name, request, ask(opened.port, request))
    say("tools, scale-out endpoints")
    _keep_all(recording, opened, cases.opened(_bias(opened)))
    say("a full queue, requests that the engine aborts, the engine's death")
    _full_queue(recording, opened)
    _aborts(recording, opened)
    _keep_all(recording, plain, (("metrics", get("/metrics", cases.REQUEST_ID)),))
    _death(recording, plain)
    _drain(recording, opened)


def _keep_all(recording: Recording, replica: Replica, chosen: cases.Cases) -> None:
    for name, request in chosen:
        recording.keep(name, request, ask(replica.port, request))


def _bias(replica: Replica) -> dict[int, float]:
    """The tokens of CALL_WORDS, all made likely."""
    request = post("/tokenize", {"model": "tiny", "prompt": CALL_WORDS, "add_special_tokens": False})
    return dict.fromkeys(ask(replica.port, request).json()["tokens"], 30.0)


def _full_queue(recording: Recording, replica: Replica) -> None:
    """One request with `n` of 2 fills the queue that OPENED_OPTIONS allow."""

    def refused() -> None:
        for name, request in cases.QUEUE_FULL:
            recording.keep_error(name, request, ask(replica.port, request))
        ask(replica.port, cases.PAUSE)

    _interrupted(replica, cases.chat(cases.AUTHORIZED, **cases.ENDLESS, n=2, temperature=1), refused)
    ask(replica.port, cases.RESUME)


def _aborts(recording: Recording, replica: Replica) -> None:
    stream = cases.chat(cases.AUTHORIZED, **cases.USAGE, **cases.ENDLESS)
    whole = cases.chat(cases.AUTHORIZED, **cases.ENDLESS)
    for name, request, action in (
        ("chat_stream_aborted", stream, cases.ABORT),
        ("chat_stream_paused", stream, cases.PAUSE),
        ("chat_paused", whole, cases.PAUSE),
    ):
        recording.keep(
            name, request, _interrupted(replica, request, functools.partial(ask, replica.port, action))
        )
        ask(replica.port, cases.RESUME)


def _death(recording: Recording, replica: Replica) -> None:
    """Kill the engine process below the server: a stream breaks inside its 200, an answer becomes a 500."""
    stream = cases.chat(**cases.USAGE, **cases.ENDLESS)
    whole = cases.completions(**cases.ENDLESS)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ask, replica.port, whole)
        broken = _interrupted(replica, stream, lambda: os.kill(engine_pid(replica), signal.SIGKILL))
        recording.keep("chat_stream_engine_dead", stream, broken)
        recording.keep_error("engine dead", whole, other.result())


def _drain(recording: Recording, replica: Replica) -> None:
    """SIGTERM with time to drain: what runs is finished, what comes is refused, and `/health` knows nothing."""

    def terminated() -> None:
        replica.terminate()
        for name, request in cases.DRAINING:
            recording.keep_any(name, request, _refusal(replica, request))
        recording.keep_any("draining, health", cases.HEALTH, ask(replica.port, cases.HEALTH))

    finished = _interrupted(replica, cases.DRAINED, terminated)
    if finished.data()[-1] != "[DONE]":
        raise ReplicaFailed("draining: the running stream was not finished")


def _refusal(replica: Replica, request: Request) -> Answer:
    """The first answer that is no 200, once the signal has arrived."""
    while True:
        answer = ask(replica.port, request)
        if answer.status != 200 or b'"error"' in answer.body:
            return answer


def _interrupted(replica: Replica, request: Request, act: Callable[[], object]) -> Answer:
    """The answer to a request in the midst of which `act` is called."""
    before = generated_tokens(replica)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, replica.port, request)
        while not answer.done() and generated_tokens(replica) < before + UNDER_WAY_TOKENS:
            time.sleep(0.01)
        act()
        return answer.result()


def generated_tokens(replica: Replica) -> float:
    text = ask(replica.port, get("/metrics")).body.decode()
    found = re.search(r"^vllm:generation_tokens_total\{.*\} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def engine_pid(replica: Replica) -> int:
    """The engine process that this replica's server started."""
    command = ["ps", "-o", "pid=,args=", "--ppid", str(replica.process.pid)]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        pid, _, name = line.strip().partition(" ")
        if "EngineCore" in name:
            return int(pid)
    raise ReplicaFailed("no engine process below the server")


@contextlib.contextmanager
def two_replicas(say: Callable[[str], None]) -> Iterator[tuple[Replica, Replica]]:
    with contextlib.ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="real-vllm-")))
        plain = start(logs, "plain")
        stack.callback(plain.stop)
        opened = start(logs, "opened", OPENED_OPTIONS, DEVELOPER_MODE)
        stack.callback(opened.stop)
        wait((plain, opened), say)
        yield plain, opened


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=FIXTURES, help="the folder to fill")
    folder = parser.parse_args().into
    if reason := missing():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    recording = Recording(folder)
    with two_replicas(print) as (plain, opened):
        record(recording, plain, opened, print)
    recording.close()
    print(f"{len(recording.exchanges)} answers and {len(recording.errors)} errors in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
