"""Configurations that change under load: replicas that say who they are, and clients that check where they got."""

import asyncio
import contextlib
import json
import operator
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.flow import LAST_PIECES, piece
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, Peer, PeerConnection, answer, chunk, scripted_peer
from tests.support.raw_client import RawAnswer, RawClient, post, raw_client
from tests.support.versions import versions_text
from tests.support.workers import Workers

MORE = "[health]\ninterval_s = 1\nup_after = 1\n"


def reloading_text(
    versions: Mapping[str, Sequence[Peer]], *, policy: str = "round_robin", more: str = "", **settings: str
) -> str:
    """`versions_text` for these replicas, which are probed often. `more` are whole tables."""
    entries = {
        name: [f'url = "{peer.url}", engine = "vllm"' for peer in peers] for name, peers in versions.items()
    }
    return versions_text(entries, policy=policy, top=MORE + more, **settings)  # type: ignore[arg-type]


# ---- replicas that say who they are ----


@contextlib.asynccontextmanager
async def named_replicas(*names: str) -> AsyncIterator[dict[str, Peer]]:
    """Each answers every chat with its name; it is well, and has no metrics worth reading."""
    async with contextlib.AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(scripted_peer(partial(_say_name, name))) for name in names
        }


async def _say_name(name: str, connection: PeerConnection) -> None:
    while True:
        head, body = await connection.request()
        if head.startswith(b"GET "):
            await connection.send(answer(b""))
        elif json.loads(body).get("stream"):
            await connection.send(STREAM_HEAD + chunk(piece(name)) + chunk(LAST_PIECES) + LAST_CHUNK)
        else:
            await connection.send(answer(_whole(name)))


def _whole(content: str) -> bytes:
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2}
    about = {"id": "1", "object": "chat.completion", "created": 1, "model": "served"}
    return json.dumps({**about, "choices": choices, "usage": usage}).encode()


def said_by(got: RawAnswer) -> str:
    """Whose answer it is, by what it says."""
    content: str = json.loads(got.body)["choices"][0]["message"]["content"]
    return content


def chat(model: str = "m", prompt: str = "hi", **more: Any) -> bytes:
    wish = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 8, **more}
    return post(json.dumps(wish).encode())


async def ask(client: RawClient, model: str = "m", prompt: str = "hi") -> RawAnswer:
    await client.send(chat(model, prompt))
    return await client.answer()


# ---- clients that check ----


class Visitors:
    """Clients that ask without end, for names that change: one connection for a few requests.

    A name that is asked for must be answered by the version that the answer names, and `pinned` ones by that.
    """

    def __init__(self, port: int, count: int, names: Sequence[str]) -> None:
        self.names = names
        """What is asked for, in turns."""
        self.answered: Counter[str] = Counter()
        """By the version that answered."""
        self.wrong: list[str] = []
        self._port = port
        self._turns = [0] * count
        """Requests that each has begun."""
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._visit(number)) for number in range(len(self._turns))]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def turn(self) -> None:
        """Until everybody has an answer to a question that was asked after this call."""
        wanted = [begun + 2 for begun in self._turns]
        async with asyncio.timeout(60):
            while not self.wrong and any(map(operator.lt, self._turns, wanted)):
                await asyncio.sleep(0.005)

    async def _visit(self, number: int) -> None:
        while not self._over.is_set():
            async with raw_client(self._port) as client:
                for _ in range(5):
                    self._turns[number] += 1
                    await self._ask(client, self.names[self._turns[number] % len(self.names)])

    async def _ask(self, client: RawClient, name: str) -> None:
        got = await ask(client, name)
        if got.status != 200:
            self.wrong.append(f"{name}: {got.status} {got.body!r}")
            return
        version = got.headers["x-turnout-version"]
        said, pinned = said_by(got), name.partition("@")[2]
        if said.partition("-")[0] != version or (pinned and pinned != version):
            self.wrong.append(f"{name}: {version} by its header, answered by {said}")
        self.answered[version] += 1


# ---- what the router says ----


async def status_of(admin: httpx.AsyncClient) -> dict[str, Any]:
    status: dict[str, Any] = (await admin.get("/api/status")).json()["config"]
    return status


async def until_config(admin: httpx.AsyncClient, timeout_s: float = 20.0, **wanted: Any) -> dict[str, Any]:
    """Until `/api/status` says so of the configuration."""
    status: dict[str, Any] = {}
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                status = await status_of(admin)
                if wanted.items() <= status.items():
                    return status
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{status}, not {wanted}") from None


async def until_config_of_all(router: Workers, **wanted: Any) -> dict[str, Any]:
    """The same of all workers."""
    return await until_config(router.admin, **wanted, behind=0)


def put(file: Path, text: str) -> None:
    """In place of the file that is there, by renaming, as careful writers do."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)
