"""HTTP to replicas off the path of requests: probes, metrics, and what an engine says of itself.

Every answer is bounded in time and size, and whatever goes wrong is one exception.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

MAX_BYTES = 16 << 20
"""More than any engine's metrics; a larger answer is not read to its end."""

IDLE_S = 4.0
"""vLLM and trtllm-serve close idle connections after 5 s."""


class NoAnswer(Exception):
    """There is no answer to use; the message says why. `refused`: nobody listens there."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer; `content` is decoded from any content encoding."""

    status: int
    content: bytes


class ControlClient:
    """Requests without redirects, cookies or proxies from the environment."""

    def __init__(self, *, keep_alive: bool) -> None:
        kept = None if keep_alive else 0
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=IDLE_S)
        self._client = httpx.AsyncClient(limits=limits, timeout=None, trust_env=False)

    async def status(self, url: str, headers: Mapping[str, str], timeout_s: float) -> int:
        """The status alone; the body is not waited for. Raises `NoAnswer`."""
        return (await self._ask("GET", url, headers, timeout_s, max_bytes=0)).status

    async def get(self, url: str, headers: Mapping[str, str], timeout_s: float) -> Answer:
        """The whole answer within `timeout_s`. Raises `NoAnswer`."""
        return await self._ask("GET", url, headers, timeout_s, MAX_BYTES)

    async def post(self, url: str, headers: Mapping[str, str], timeout_s: float, max_bytes: int) -> Answer:
        """As `get`, without a body, for what a question changes. Raises `NoAnswer`."""
        return await self._ask("POST", url, headers, timeout_s, max_bytes)

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], timeout_s: float, max_bytes: int
    ) -> Answer:
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream(method, url, headers=headers) as answer,
            ):
                return Answer(answer.status_code, await _read(answer, max_bytes))
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if _was_refused(error):
                raise NoAnswer("connection refused", refused=True) from error
            raise NoAnswer(str(error) or type(error).__name__) from error


async def _read(answer: httpx.Response, max_bytes: int) -> bytes:
    content = bytearray()
    if max_bytes:
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > max_bytes:
                raise NoAnswer(f"the answer is larger than {max_bytes} bytes")
    return bytes(content)


def _was_refused(error: BaseException) -> bool:
    """By the peer's host, at the bottom of what httpx made of it; for several addresses, by all."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return True
        if isinstance(cause, BaseExceptionGroup):
            return all(_was_refused(each) for each in cause.exceptions)
        cause = cause.__cause__ or cause.__context__
    return False
