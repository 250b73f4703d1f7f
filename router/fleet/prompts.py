"""Prompts as chained hashes of their blocks, the form in which policies compare them.

The chain's seed holds what must be equal before anything is shared: the version, the tenant's scope, and a
key, so that nobody outside can make two prompts collide. Every process with that key gets equal hashes. xxh3
is no cryptographic hash: a collision would cost a cache hit, never an answer.
"""

import hashlib
from array import array
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from policies.routing.cost_model import Average
from policies.routing.events import Prompt
from policies.routing.prefix_index import SCOPE_BITS
from router.api.prompt_text import text_of
from router.api.request import InferenceRequest
from router.fleet.token_prompts import TokenPrompts

BLOCK_BYTES: Final = 512
"""Of UTF-8 text, some 128 tokens; or 128 token ids of 4 bytes."""
_TOKEN_BYTES: Final = 4
_BYTES_PER_TOKEN: Final = 4.0
_RATIO_WINDOW: Final = 200
_HASH_MASK: Final = (1 << 60) - 1
_SCOPE_MASK: Final = (1 << SCOPE_BITS) - 1


class Hashed(NamedTuple):
    """A prompt, and where the hashes of its answer go on from; None where nobody is to guess those."""

    prompt: Prompt
    end: "End | None"


class End(NamedTuple):
    """Of a chain: its last link, with all its bits, the tag of its blocks, the bytes that fill no block."""

    link: int
    tag: int
    rest: bytes


class PromptHasher:
    """For one version of one model. `learn` refines how many tokens its text makes.

    With `ids` prompts are hashed as token ids where those are known, and are equal to what engines say they
    hold; then nobody has to guess at the end of an answer what its replica holds now.
    """

    def __init__(self, key: bytes, model: str, version: str, ids: TokenPrompts | None = None) -> None:
        self._ids = ids
        self._base = hashlib.blake2b(f"{model}@{version}".encode(), key=key[:64], digest_size=8)
        self._seeds: dict[tuple[str, bool], tuple[int, int]] = {}
        self._bytes_per_token = Average(_BYTES_PER_TOKEN, _RATIO_WINDOW)

    @property
    def counts(self) -> bool:
        """Tokens of prompts are counted, not guessed, where a prompt can be read."""
        return self._ids is not None

    def read(self, request: InferenceRequest, scope: str = "") -> Hashed | None:
        """The request's prompt; None for requests without one."""
        known = None if self._ids is None else self._ids.prompt_of(request)
        if known is not None:
            return Hashed(known, None)
        text = text_of(request)
        if text is None:
            return None
        hashed = self._hash(text, scope)
        return hashed if self._ids is None else Hashed(hashed.prompt, None)

    def answered(self, hashed: Hashed, answer: str) -> Prompt | None:
        """The prompt and its answer's text as one; None where `end` is."""
        prompt, end = hashed
        if end is None:
            return None
        content = answer.encode(errors="replace")
        blocks, _ = _chain(end.rest + content, end.link, end.tag)
        tokens = prompt.tokens + int(len(content) * prompt.block_tokens / BLOCK_BYTES)
        return Prompt((*prompt.blocks, *blocks), tokens, prompt.block_tokens)

    def hashed(self, text: str | list[int], scope: str = "") -> Prompt:
        """Blocks of a text, or of token ids."""
        return self._hash(text, scope).prompt

    def learn(self, prompt: Prompt, tokens: int) -> None:
        """What the engine counted."""
        if tokens > 0 and prompt.tokens > 0 and not prompt.exact:
            self._bytes_per_token.add(prompt.tokens * BLOCK_BYTES / prompt.block_tokens / tokens)

    def _hash(self, text: str | list[int], scope: str) -> Hashed:
        exact = not isinstance(text, str)
        if isinstance(text, str):
            content, ratio = text.encode(errors="replace"), self._bytes_per_token.value
        else:
            content, ratio = array("I", [one & 0xFFFFFFFF for one in text]).tobytes(), float(_TOKEN_BYTES)
        blocks, end = _chain(content, *self._seed(scope, ids=exact))
        prompt = Prompt(tuple(blocks), int(len(content) / ratio), BLOCK_BYTES / ratio, exact)
        # Answers are texts: they do not go on from ids.
        return Hashed(prompt, None if exact else end)

    def _seed(self, scope: str, *, ids: bool) -> tuple[int, int]:
        """Where a chain begins, and the tag that all its blocks carry."""
        known = self._seeds.get((scope, ids))
        if known is None:
            digest = self._base.copy()
            digest.update(f"\0{scope}\0{ids}".encode())
            number = int.from_bytes(digest.digest(), "big")
            tag = xxh3_64_intdigest(scope.encode(), int.from_bytes(self._base.digest(), "big")) & _SCOPE_MASK
            known = self._seeds[scope, ids] = number, tag
        return known


def _chain(content: bytes, link: int, tag: int) -> tuple[list[int], End]:
    """Blocks that follow `link`, and where they end."""
    blocks = []
    full = len(content) - len(content) % BLOCK_BYTES
    for begin in range(0, full, BLOCK_BYTES):
        link = xxh3_64_intdigest(content[begin : begin + BLOCK_BYTES], link)
        blocks.append(link & _HASH_MASK & ~_SCOPE_MASK | tag)
    return blocks, End(link, tag, content[full:])
