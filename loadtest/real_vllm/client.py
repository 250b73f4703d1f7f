"""The clients: streamed chat completions over HTTP, and when the first token of each was there."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

import httpx
import msgspec

from loadtest.real_vllm.endless import EndlessCache
from loadtest.real_vllm.workloads import ANSWER_TOKENS, Message, Turn

_TIMEOUT_S = 120.0


@dataclass(slots=True)
class Seen:
    """What the clients of one run saw."""

    endless: EndlessCache
    first_tokens_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass(slots=True)
class _Answer:
    pieces: list[str] = field(default_factory=list)
    first_token_at: float | None = None
    complete: bool = False

    def take(self, line: str) -> None:
        """One line of the stream. Raises `msgspec.DecodeError`."""
        if line == "data: [DONE]":
            self.complete = True
        elif line.startswith("data: "):
            for choice in msgspec.json.decode(line[6:]).get("choices", ()):
                if piece := choice["delta"].get("content"):
                    self.first_token_at = self.first_token_at or monotonic()
                    self.pieces.append(piece)


async def drive(port: int, clients: Sequence[Sequence[Turn]], block_tokens: int) -> Seen:
    """All turns, every client's one after the other."""
    seen = Seen(EndlessCache(block_tokens))
    began = monotonic()
    limits = httpx.Limits(max_connections=len(clients), max_keepalive_connections=len(clients))
    address = f"http://127.0.0.1:{port}/v1"
    async with httpx.AsyncClient(base_url=address, timeout=_TIMEOUT_S, limits=limits) as http:
        await asyncio.gather(*(_one(http, turns, seen) for turns in clients))
    seen.seconds = monotonic() - began
    return seen


async def _one(http: httpx.AsyncClient, turns: Sequence[Turn], seen: Seen) -> None:
    sessions: dict[int, list[Message]] = {}
    for turn in turns:
        messages = sessions.setdefault(turn.session, [])
        messages += turn.said
        seen.endless.ask(messages)
        answer = await _ask(http, messages, seen)
        messages.append(Message("assistant", "".join(answer.pieces)))
        seen.endless.store(messages)


async def _ask(http: httpx.AsyncClient, messages: Sequence[Message], seen: Seen) -> _Answer:
    body = {
        "model": "m",
        "messages": [message._asdict() for message in messages],
        "stream": True,
        "max_tokens": ANSWER_TOKENS,
        "ignore_eos": True,
        "temperature": 0,
    }
    answer = _Answer()
    began = monotonic()
    try:
        async with http.stream("POST", "/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                seen.errors[f"status {response.status_code}"] += 1
                return answer
            async for line in response.aiter_lines():
                answer.take(line)
    except (httpx.HTTPError, msgspec.DecodeError) as error:
        seen.errors[type(error).__name__] += 1
        return answer
    if answer.complete and answer.first_token_at is not None:
        seen.first_tokens_s.append(answer.first_token_at - began)
    else:
        seen.errors["no whole answer"] += 1
    return answer
