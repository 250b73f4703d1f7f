"""Workloads as text: what is known by its hashes only becomes words that are alike exactly as the hashes are.

A block's hash decides its words, and a word is one token of the simulated engines, so that their own blocks
and hashes fall where the workload's do. Where no hash is known, the words are nobody else's.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

import msgspec

from loadtest.engine.tokens import WORDS
from loadtest.simulate.workload import Call, Workload

_NO_HASH: Final = 1 << 64
"""Hashes are below this; from here on are the seeds of what has none."""


class Question(NamedTuple):
    """`answer` is what an engine must say, as the next turn repeats it; None: anything of that length."""

    prompt: str
    answer: str | None
    completion_tokens: int

    def body(self, model: str) -> bytes:
        """A streamed completion request: without a chat template the prompt has no token but its own."""
        document: dict[str, object] = {
            "model": model,
            "prompt": self.prompt,
            "max_tokens": self.completion_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.answer is not None:
            document["structured_outputs"] = {"choice": [self.answer]}
        return msgspec.json.encode(document)


class Wording:
    """Finds the words for blocks, and remembers them."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._known: dict[int, Sequence[str]] = {}
        self._calls = 0

    def question(self, call: Call) -> Question:
        """Calls without hashes in common have no words in common, even if it is the same call again."""
        self._calls += 1
        prompt_tokens, tokens = call.prompt.tokens, call.prompt.tokens + call.completion_tokens
        hashes = call.answer or call.prompt.blocks
        words = [word for block in hashes for word in self._block(block)][:tokens]
        words += _words(_NO_HASH + self._calls, tokens - len(words))
        answer = "".join(words[prompt_tokens:]) if call.answer else None
        return Question("".join(words[:prompt_tokens]), answer, call.completion_tokens)

    def _block(self, block: int) -> Sequence[str]:
        if block not in self._known:
            self._known[block] = _words(block, self._block_tokens)
        return self._known[block]


def bodies_of(workload: Workload, model: str) -> list[list[bytes]]:
    """Of every call of every session."""
    wording = Wording(workload.block_tokens)
    return [[wording.question(call).body(model) for call in one.calls] for one in workload.sessions]


def _words(seed: int, count: int) -> list[str]:
    return Random(seed).choices(WORDS, k=count)
