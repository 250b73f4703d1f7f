"""Tells another system of every move of a release: one POST each, tried again for a while, in order."""

import asyncio
import logging
from typing import Final

import httpx
import msgspec
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from policies.release.lifecycle import Release
from router.config.model import ReleasesConfig
from router.control.releases.records import Entry

log = logging.getLogger("turnout.releases")

TRIES: Final = 4
TIMEOUT_S: Final = 5.0
MOST_WAITING: Final = 100


class Told(msgspec.Struct, frozen=True):
    """What is posted, as JSON."""

    model: str
    release: Release
    move: Entry


class Webhook:
    """`tell` never waits and never fails."""

    def __init__(self, config: ReleasesConfig) -> None:
        assert config.webhook is not None
        self._url = config.webhook.reveal()
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        self._task: asyncio.Task[None] | None = None

    def tell(self, model: str, release: Release, entry: Entry) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_telling())
        try:
            self._waiting.put_nowait(msgspec.json.encode(Told(model, release, entry)))
        except asyncio.QueueFull:
            log.warning("%s: the webhook does not keep up: it is not told of %s", model, entry.verb)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def _keep_telling(self) -> None:
        while True:
            body = await self._waiting.get()
            try:
                async for attempt in AsyncRetrying(
                    stop=stop_after_attempt(TRIES),
                    wait=wait_exponential(multiplier=0.2, max=5),
                    retry=retry_if_exception_type(httpx.HTTPError),
                ):
                    with attempt:
                        answer = await self._client.post(
                            self._url, content=body, headers={"content-type": "application/json"}
                        )
                        answer.raise_for_status()
            except RetryError as error:
                cause = error.last_attempt.exception()
                log.warning("the webhook was not told of a move of a release: %s", type(cause).__name__)
