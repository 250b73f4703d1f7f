"""A split keeps conversations together, and so their cached prefixes; a coin tossed for each request does not."""

import asyncio
from typing import Any

from tests.support.loops import run_strictly
from tests.support.versions import RunningVersions, simulated_versions

SESSIONS, TURNS = 24, 6
HALVES = "[models.m.split]\nweights = { v1 = 1, v2 = 1 }\n"
REPLICAS: dict[str, Any] = {"v1": ["vllm", "vllm"], "v2": ["vllm", "vllm"]}


async def conversation(versions: RunningVersions, number: int) -> tuple[int, int]:
    """Prompt tokens of all turns, and how many of them were cached."""
    messages = [{"role": "user", "content": f"conversation {number}: " + f"tell me of {number} ships " * 30}]
    prompt = cached = 0
    for turn in range(TURNS):
        answer = (await versions.chat(messages=messages, max_tokens=20)).json()
        prompt += answer["usage"]["prompt_tokens"]
        cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        messages.append({"role": "user", "content": f"and what of number {turn}? " * 10})
    return prompt, cached


def hit_share(model: str = "") -> float:
    share = 0.0

    async def run() -> None:
        nonlocal share
        engine = {"extra": {"enable_prompt_tokens_details": True}}
        async with simulated_versions(
            policy="prefix_affinity", model=model, engine=engine, **REPLICAS
        ) as versions:
            seen = await asyncio.gather(*(conversation(versions, number) for number in range(SESSIONS)))
        share = sum(cached for _, cached in seen) / sum(prompt for prompt, _ in seen)

    run_strictly(run())
    return share


def test_conversations_find_as_much_as_without_a_split() -> None:
    unsplit, sticky = hit_share(), hit_share(HALVES)
    tossed = hit_share('split_by = "request"\n' + HALVES)
    print(f"unsplit {unsplit:.3f}, by session {sticky:.3f}, by request {tossed:.3f}")
    assert unsplit > 0.5
    assert sticky >= 0.95 * unsplit
    assert tossed < 0.9 * unsplit
