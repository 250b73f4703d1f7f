"""Fleets that stand for a whole test module, and what an OpenAI client was told, streamed or not.

Everything a client says of a stream is checked here once: one id, one time, one model, one finish a choice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI

from tests.support.routers import config_text, running_router
from tests.support.simulated import RunningFleet, replica_entry, simulated_engines

PUBLIC_NAME = "m"
DIALECTS = ("vllm", "trtllm", "tgi", "triton")
ALIASES = ("gpt-4o-mini", "tgi")
"""Other names of the model; TGI's own client says `tgi`."""

Test = Callable[[AsyncOpenAI], Awaitable[None]]


# ---- fleets ----


@contextlib.asynccontextmanager
async def named_fleet(*dialects: str, more: str = "", **options: object) -> AsyncIterator[RunningFleet]:
    """Replicas of these dialects as version `v1` of `PUBLIC_NAME`, which has `ALIASES` too."""
    async with simulated_engines(*dialects, **options) as engines:
        text = config_text(*map(replica_entry, engines), more=more)
        aliases = ", ".join(f'"{alias}"' for alias in ALIASES)
        async with running_router(
            text.replace("[models.m]", f"[models.m]\naliases = [{aliases}]")
        ) as running:
            yield RunningFleet(engines, running)


class StandingFleets:
    """Fleets started when first asked for, all in one event loop, which runs while a test does.

    `more` is added to their configuration.
    """

    def __init__(self, more: str = "") -> None:
        self._more = more
        self._runner = asyncio.Runner()
        self._fleets: dict[tuple[str, ...], tuple[RunningFleet, AsyncOpenAI]] = {}
        self._stacks: list[contextlib.AsyncExitStack] = []

    def of(self, *dialects: str) -> RunningFleet:
        return self._runner.run(self._started(*dialects))[0]

    async def _started(self, *dialects: str) -> tuple[RunningFleet, AsyncOpenAI]:
        if dialects not in self._fleets:
            stack = contextlib.AsyncExitStack()
            self._stacks.append(stack)
            fleet = await stack.enter_async_context(named_fleet(*dialects, more=self._more, speed=100.0))
            client = await stack.enter_async_context(openai_client(fleet))
            self._fleets[dialects] = (fleet, client)
        return self._fleets[dialects]

    def run(self, test: Test, *dialects: str) -> None:
        """Run `test` with a client of the fleet; nothing of it may stay behind in the router."""

        async def whole() -> None:
            fleet, client = await self._started(*dialects)
            await test(client)
            await settled(fleet)

        self._runner.run(whole())

    def close(self) -> None:
        """Stop them all at once: a router takes its time to leave."""

        async def all_of_them() -> None:
            await asyncio.gather(*[stack.aclose() for stack in self._stacks])

        self._runner.run(all_of_them())
        self._runner.close()


@contextlib.contextmanager
def standing_fleets(more: str = "") -> Iterator[StandingFleets]:
    fleets = StandingFleets(more)
    try:
        yield fleets
    finally:
        fleets.close()


def openai_client(fleet: RunningFleet) -> AsyncOpenAI:
    """The official client, which tries nothing twice."""
    return AsyncOpenAI(base_url=fleet.base_url, api_key="any", max_retries=0, timeout=20)


async def settled(fleet: RunningFleet) -> None:
    """Until no slot, watched attempt or request is left in the router. Raises `TimeoutError`."""
    router = fleet.running.router
    async with asyncio.timeout(5):
        while any(each.in_flight for each in router.fleet.replicas) or router.front_end.open_requests:
            await asyncio.sleep(0.005)


def dialect_of(fleet: RunningFleet, replica: str) -> str:
    """The dialect of the replica that `x-turnout-replica` names."""
    return next(e.options.dialect for e in fleet.engines if e.url.endswith(f"//{replica}"))


# ---- what was said ----


@dataclass(slots=True)
class Choice:
    """One choice, joined. `calls`: name, arguments and id by the call's index; `tokens`: with logprobs only."""

    text: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    finish_reason: str | None = None
    tokens: list[str] = field(default_factory=list)
    most_alternatives: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """One answer. `usage`: prompt and completion tokens, None where the client was told none."""

    choices: Sequence[Choice]
    usage: tuple[int, int] | None
    replica: str

    @property
    def text(self) -> str:
        return self.choices[0].text

    def without_ids(self) -> list[tuple[str, list[list[str]], str | None]]:
        """What two answers to the same wish have in common, their calls' ids left out."""
        return [
            (choice.text, [call[:2] for _, call in sorted(choice.calls.items())], choice.finish_reason)
            for choice in self.choices
        ]


async def say(client: AsyncOpenAI, wish: Mapping[str, Any], **more: Any) -> Said:
    """A chat, or a completion if the wish has a prompt; `stream` and all else as the client knows it."""
    endpoint: Any = client.completions if "prompt" in wish else client.chat.completions
    answer = await endpoint.with_raw_response.create(**{"model": PUBLIC_NAME, **wish, **more})
    replica = answer.headers["x-turnout-replica"]
    if more.get("stream"):
        return await _joined(answer.parse(), replica, wish, more)
    whole = answer.parse()
    assert whole.model == PUBLIC_NAME
    assert whole.object == ("text_completion" if "prompt" in wish else "chat.completion")
    assert whole.id
    choices = [_whole_choice(choice) for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == list(range(len(choices)))
    return Said(choices, (whole.usage.prompt_tokens, whole.usage.completion_tokens), replica)


async def _joined(chunks: Any, replica: str, wish: Mapping[str, Any], more: Mapping[str, Any]) -> Said:
    heads: set[tuple[Any, ...]] = set()
    roles: list[int] = []
    usages: list[tuple[int, int]] = []
    choices: dict[int, Choice] = {}
    async for chunk in chunks:
        assert not usages, "nothing comes after usage"
        heads.add((chunk.id, chunk.created, chunk.model, chunk.object))
        for part in chunk.choices:
            choice = choices.setdefault(part.index, Choice())
            assert choice.finish_reason is None, "nothing comes after the finish"
            roles += [part.index] if getattr(getattr(part, "delta", None), "role", None) else []
            _add(choice, part)
        if chunk.usage is not None:
            assert chunk.choices == []
            usages.append((chunk.usage.prompt_tokens, chunk.usage.completion_tokens))
    ((name, _, model, kind),) = heads
    assert name
    assert model == PUBLIC_NAME
    assert kind == ("text_completion" if "prompt" in wish else "chat.completion.chunk")
    assert sorted(roles) == ([] if "prompt" in wish else sorted(choices))
    assert all(choice.finish_reason for choice in choices.values())
    wants_usage = bool((more.get("stream_options") or {}).get("include_usage"))
    assert len(usages) == wants_usage, "usage comes if and only if it was asked for"
    return Said([choices[index] for index in sorted(choices)], usages[0] if usages else None, replica)


def _add(choice: Choice, part: Any) -> None:
    """A part of a stream; strings grow, as every client joins them."""
    delta = getattr(part, "delta", None)
    choice.text += part.text if delta is None else delta.content or ""
    choice.finish_reason = part.finish_reason
    for call in (delta.tool_calls or []) if delta is not None else []:
        pieces = (call.function.name, call.function.arguments, call.id)
        known = choice.calls.setdefault(call.index, ["", "", ""])
        known[:] = [before + (piece or "") for before, piece in zip(known, pieces, strict=True)]
    _add_logprobs(choice, part.logprobs)


def _whole_choice(part: Any) -> Choice:
    message = getattr(part, "message", None)
    assert message is None or message.role == "assistant"
    text = part.text if message is None else message.content or ""
    calls = (message.tool_calls or []) if message is not None else []
    joined = {n: [call.function.name, call.function.arguments, call.id] for n, call in enumerate(calls)}
    assert text is not None
    choice = Choice(text, joined, part.finish_reason)
    _add_logprobs(choice, part.logprobs)
    return choice


def _add_logprobs(choice: Choice, logprobs: Any) -> None:
    """A chat's list of objects, or a completion's lists."""
    if logprobs is None:
        return
    if getattr(logprobs, "tokens", None) is not None:
        tokens, alternatives = logprobs.tokens, logprobs.top_logprobs or []
    else:
        tokens = [entry.token for entry in logprobs.content or []]
        alternatives = [entry.top_logprobs or [] for entry in logprobs.content or []]
    choice.tokens += tokens
    choice.most_alternatives = max([choice.most_alternatives, *map(len, alternatives)])
