"""The demo's clients: conversations over the OpenAI API, a few turns each, all streamed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from time import monotonic

import httpx
import msgspec

from loadtest.demo.fleet import GUEST

SYSTEM_PROMPT = "You are the assistant of a small railway company. " + " ".join(
    f"Rule {n}: answer about timetables, tickets, platforms and delays, politely and in full sentences."
    for n in range(1, 40)
)
_QUESTIONS = (
    "When does the next train to the coast leave?",
    "Can I take my bicycle on the early train?",
    "What does a return ticket cost on Sunday?",
    "Which platform does the night train use?",
    "How late is the express today?",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer as its client saw it; times in seconds."""

    model: str
    status: int
    replica: str = ""
    version: str = ""
    attempts: int = 0
    overhead_ms: float = 0.0
    first_token_s: float | None = None
    total_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    error: str = ""
    retry_after_s: float = 0.0

    @property
    def refused(self) -> bool:
        """By a limit; the client waits as long as it is told."""
        return self.status == 429


@dataclass(slots=True)
class Answer:
    """A stream as it is read."""

    text: list[str] = field(default_factory=list)
    first_token_s: float | None = None
    usage: dict[str, object] = field(default_factory=dict)
    error: str = ""

    def take(self, line: str, began: float) -> None:
        if not line.startswith("data: ") or line == "data: [DONE]":
            return
        frame = msgspec.json.decode(line[6:])
        self.error = frame.get("error", {}).get("message", self.error)
        self.usage = frame.get("usage") or self.usage
        for choice in frame.get("choices", ()):
            if piece := choice["delta"].get("content"):
                self.first_token_s = self.first_token_s or monotonic() - began
                self.text.append(piece)


async def converse(
    client: httpx.AsyncClient, model: str, user: str, session: str, turns: int, random: Random
) -> AsyncIterator[Turn]:
    """A conversation of `turns` turns; each extends the one before."""
    messages = [{"role": "system", "content": SYSTEM_PROMPT}]
    for _ in range(turns):
        messages.append({"role": "user", "content": random.choice(_QUESTIONS)})
        body = {
            "model": model,
            "user": user,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": random.randint(20, 60),
        }
        turn, text = await _ask(client, body, session)
        yield turn
        while turn.refused:
            await asyncio.sleep(turn.retry_after_s)
            turn, text = await _ask(client, body, session)
            yield turn
        messages.append({"role": "assistant", "content": text})


async def _ask(client: httpx.AsyncClient, body: dict[str, object], session: str) -> tuple[Turn, str]:
    began = monotonic()
    answer = Answer()
    model = str(body["model"])
    async with client.stream(
        "POST", "chat/completions", json=body, headers={"x-session-id": session}
    ) as response:
        async for line in response.aiter_lines():
            answer.take(line, began)
    details = answer.usage.get("prompt_tokens_details")
    headers = response.headers
    turn = Turn(
        model=model,
        status=response.status_code,
        replica=headers.get("x-turnout-replica", ""),
        version=headers.get("x-turnout-version", ""),
        attempts=int(headers.get("x-turnout-attempts", 0)),
        overhead_ms=float(headers.get("x-turnout-overhead-ms", 0.0)),
        first_token_s=answer.first_token_s,
        total_s=monotonic() - began,
        prompt_tokens=_number(answer.usage, "prompt_tokens"),
        completion_tokens=_number(answer.usage, "completion_tokens"),
        cached_tokens=details.get("cached_tokens") if isinstance(details, dict) else None,
        error=answer.error,
        retry_after_s=float(headers.get("retry-after-ms", 0.0)) / 1000,
    )
    return turn, "".join(answer.text)


def _number(usage: dict[str, object], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0


async def drive(
    endpoint: str, models: dict[str, float], seconds: float, clients: int, tell: Callable[[Turn], None]
) -> list[Turn]:
    """`clients` conversations at a time for `seconds`; `models` are names and their shares.

    `tell` hears every turn.
    """
    turns: list[Turn] = []
    end = monotonic() + seconds
    random = Random(7)

    async def one(number: int, client: httpx.AsyncClient) -> None:
        count = 0
        while monotonic() < end:
            count += 1
            model = random.choices(list(models), list(models.values()))[0]
            user = GUEST if number == 0 else f"passenger-{number}"
            async for turn in converse(client, model, user, f"demo-{number}-{count}", 4, random):
                turns.append(turn)
                tell(turn)
                if monotonic() >= end:
                    break

    async with httpx.AsyncClient(
        base_url=endpoint, timeout=30, limits=httpx.Limits(max_connections=clients)
    ) as client:
        await asyncio.gather(*[one(number, client) for number in range(clients)])
    return turns
