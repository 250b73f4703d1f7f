"""The clients: sessions of calls over HTTP, each call when the workload says, its answer read as it comes."""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, NamedTuple

import httpx
import msgspec

from loadtest.simulate.results import Served
from loadtest.simulate.workload import Call, Session, Workload

_TIMEOUT_S: Final = 600.0
_WORKER: Final = 0
"""Which of several took a connection is not told; all are counted as one."""


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


class Answer(NamedTuple):
    """One stream; monotonic seconds. `usage` None: it did not come whole."""

    first_at: float | None
    ended_at: float
    replica: str
    attempts: int
    usage: _Usage | None


class Clients:
    """Of one run. Times are seconds from `started_at`, a time of `monotonic`."""

    def __init__(self, client: httpx.AsyncClient, started_at: float, tell: Callable[[], object]) -> None:
        self.served: list[Served] = []
        self._client = client
        self.started_at = started_at
        self._tell = tell

    async def play(self, workload: Workload, bodies: Sequence[Sequence[bytes]]) -> None:
        """All sessions, each call after the one before."""
        async with asyncio.TaskGroup() as group:
            for session, own in zip(workload.sessions, bodies, strict=True):
                group.create_task(self._session(session, own))

    async def _session(self, session: Session, bodies: Sequence[bytes]) -> None:
        due = self.started_at + session.starts_s
        for call, body in zip(session.calls, bodies, strict=True):
            due += call.think_s
            await asyncio.sleep(max(0.0, due - monotonic()))
            self.served.append(await self._call(call, session.name, body, due))
            self._tell()
            due = monotonic()

    async def _call(self, call: Call, session: str | None, body: bytes, due: float) -> Served:
        """Timed from when it was due: a client that is late has made somebody wait."""
        sent_at = monotonic()
        headers = {"content-type": "application/json"} | ({"x-session-id": session} if session else {})
        answer = await ask(self._client, headers, body)
        usage, begun = answer.usage, self.started_at
        details = usage.prompt_tokens_details if usage is not None else None
        return Served(
            call,
            due - begun,
            call.prompt.tokens if usage is None else usage.prompt_tokens,
            0 if details is None else details.cached_tokens,
            0 if usage is None else usage.completion_tokens,
            answer.replica,
            _WORKER,
            answer.attempts,
            sent_at - begun,
            None if answer.first_at is None else answer.first_at - begun,
            answer.ended_at - begun,
            usage is not None,
        )


def clients_of(endpoint: str) -> httpx.AsyncClient:
    """As many connections as there are open requests."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=endpoint, timeout=_TIMEOUT_S, limits=limits)


async def ask(client: httpx.AsyncClient, headers: dict[str, str], body: bytes) -> Answer:
    """Only the first piece's time is taken while it streams; what it says is read at the end."""
    first_at: float | None = None
    pieces: list[bytes] = []
    replica, attempts, status = "", 0, 0
    try:
        async with client.stream("POST", "/v1/completions", content=body, headers=headers) as response:
            status = response.status_code
            replica = response.headers.get("x-turnout-replica", "")
            attempts = int(response.headers.get("x-turnout-attempts", 0))
            async for piece in response.aiter_raw():
                if first_at is None and status == httpx.codes.OK:
                    first_at = monotonic()
                pieces.append(piece)
    except httpx.HTTPError:
        return Answer(first_at, monotonic(), replica, attempts, None)
    return Answer(first_at, monotonic(), replica, attempts, usage_in(b"".join(pieces)))


def usage_in(stream: bytes) -> _Usage | None:
    """What the last event of a whole answer says; None if it broke off."""
    datas = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    if len(datas) < 3 or datas[-1] != b"[DONE]":
        return None
    try:
        ending, last = (msgspec.json.decode(data, type=_Event) for data in datas[-3:-1])
    except msgspec.MsgspecError:
        return None
    return last.usage if any(choice.finish_reason for choice in ending.choices) else None
