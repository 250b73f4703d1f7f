"""What a client asks of a running router, with the standard library alone.

`python -m tests.deploy.asking TOKEN` asks the router of this network namespace and prints what it saw.
"""

import http.client
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

PUBLIC, ADMIN = 8080, 8081


@dataclass(frozen=True, slots=True)
class Streamed:
    """A streamed chat completion as its client saw it. Times are seconds from sending it."""

    status: int
    replica: str
    events: int
    done: bool
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class Answers:
    """Statuses of the pages of both listeners, and one stream."""

    live: int
    ready: int
    stream: Streamed
    metrics_without_token: int
    metrics_with_token: int
    metric_names: list[str]


class Completion:
    """A chat completion that is asked for at once and read when wanted."""

    def __init__(self, max_tokens: int, session: str = "s") -> None:
        self._sent = time.monotonic()
        self._connection = http.client.HTTPConnection("127.0.0.1", PUBLIC, timeout=60)
        messages = [{"role": "user", "content": "Tell me of switches and crossings."}]
        body = {
            "model": "demo-8b",
            "messages": messages,
            "stream": True,
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
        headers = {"content-type": "application/json", "x-session-id": session}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        self._response = self._connection.getresponse()

    @property
    def replica(self) -> str:
        return self._response.headers.get("x-turnout-replica", "")

    def read(self) -> Streamed:
        times = []
        last = b""
        while line := self._response.readline():
            if line.startswith(b"data:"):
                last = line.strip()
                times.append(time.monotonic() - self._sent)
        self._connection.close()
        return Streamed(
            status=self._response.status,
            replica=self.replica,
            events=len(times),
            done=last == b"data: [DONE]",
            first_s=times[0] if times else 0.0,
            last_s=times[-1] if times else 0.0,
        )


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Status and text; 0 if nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read().decode()
    except ConnectionError:
        return 0, ""
    finally:
        connection.close()


def wait_for(true: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.05)


def ask(token: str) -> Answers:
    """Waits until the router is ready, then asks."""
    wait_for(lambda: get(PUBLIC, "/readyz")[0] == 200, "readiness")
    stream = Completion(max_tokens=64).read()
    with_token, metrics = get(ADMIN, "/metrics", {"authorization": f"Bearer {token}"})
    return Answers(
        live=get(PUBLIC, "/livez")[0],
        ready=get(PUBLIC, "/readyz")[0],
        stream=stream,
        metrics_without_token=get(ADMIN, "/metrics")[0],
        metrics_with_token=with_token,
        metric_names=[line.split()[2] for line in metrics.splitlines() if line.startswith("# TYPE")],
    )


if __name__ == "__main__":
    print(json.dumps(asdict(ask(sys.argv[1]))))
