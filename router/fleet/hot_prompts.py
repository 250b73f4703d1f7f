"""The prompts whose beginnings come most often: what a replica with an empty cache is best given first.

A root is how a prompt begins, its first half a thousand tokens. Of each hot root one request is kept as it
came, salt and all, so that it means to the engine what it meant before. Bounded in number and in bytes.
"""

from collections import OrderedDict
from collections.abc import Iterator
from math import ceil, inf, log2
from typing import Final, NamedTuple

import msgspec

from policies.routing.events import Prompt
from router.api.request import Endpoint, InferenceRequest
from router.fleet.facts import Facts
from router.fleet.prompts import BLOCK_BYTES

_ROOT_TOKENS: Final = 512
"""Shorter prompts are not kept: to compute one anew costs next to nothing."""
_ROOT_BLOCKS: Final = 4 * _ROOT_TOKENS // BLOCK_BYTES
HALF_LIFE_S: Final = 300.0
"""A request counts half as much as one that comes so much later; and so old a body is renewed."""
MAX_BODY_BYTES: Final = 256 * 1024
MAX_BYTES: Final = 16 * 1024 * 1024
_MAX_SEEN: Final = 4096
_SPARE: Final = 4
"""Roots that are kept for each that is asked for: those behind the hottest may be the hottest soon."""
_TEXT_PARTS: Final = frozenset({"input_text", "refusal", "text"})


class HotPrompt(NamedTuple):
    """One request with a hot root: the shortest of them, as it has the least that others do not share."""

    request: InferenceRequest
    facts: Facts
    prompt: Prompt


class _Root:
    __slots__ = ("at", "heat", "hot")

    def __init__(self, heat: float, hot: HotPrompt, now: float) -> None:
        self.heat = heat
        self.hot = hot
        self.at = now


class _Part(msgspec.Struct):
    type: str = ""


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])


class HotPrompts:
    """Of one version. `count` and `tokens` (the sum of their prompts) bound what is asked for at a time."""

    def __init__(self, count: int, tokens: int) -> None:
        self.count = count
        self.tokens = tokens
        self._roots: dict[int, _Root] = {}
        self._bytes = 0
        # Heat of roots without a body: most prompts never come again, and are not kept.
        self._seen: OrderedDict[int, float] = OrderedDict()

    def bound(self, other: "HotPrompts") -> "HotPrompts":
        """Ask for no more at a time than `other`; returns this one."""
        self.count, self.tokens = other.count, other.tokens
        return self

    def note(self, request: InferenceRequest, facts: Facts, now: float) -> None:
        """It was answered."""
        root = _root_of(request, facts.prompt)
        if root is None or facts.prompt is None:
            return
        known = self._roots.get(root)
        if known is not None:
            known.heat = _heated(known.heat, now)
            if facts.prompt.tokens < known.hot.prompt.tokens or now - known.at > HALF_LIFE_S:
                self._keep(root, known.heat, HotPrompt(request, facts, facts.prompt), now)
            return
        before = self._seen.pop(root, None)
        heat = _heated(-inf if before is None else before, now)
        if before is None or not self._admits(heat):
            self._seen[root] = heat
            if len(self._seen) > _MAX_SEEN:
                self._seen.popitem(last=False)
            return
        self._keep(root, heat, HotPrompt(request, facts, facts.prompt), now)

    def hottest(self) -> Iterator[HotPrompt]:
        """The hottest first, within the bounds; what is too long for the tokens left is passed over."""
        left, tokens = self.count, self.tokens
        for root in sorted(self._roots.values(), key=_heat_of, reverse=True):
            if not left:
                return
            if root.hot.prompt.tokens <= tokens:
                left, tokens = left - 1, tokens - root.hot.prompt.tokens
                yield root.hot

    @property
    def kept_bytes(self) -> int:
        return self._bytes

    def _admits(self, heat: float) -> bool:
        if len(self._roots) < _SPARE * self.count:
            return True
        return heat > min(root.heat for root in self._roots.values())

    def _keep(self, root: int, heat: float, hot: HotPrompt, now: float) -> None:
        if not _is_text(hot.request):
            return
        self._drop(root)
        self._roots[root] = _Root(heat, hot, now)
        self._bytes += len(hot.request.body)
        while len(self._roots) > _SPARE * self.count or self._bytes > MAX_BYTES:
            self._drop(min(self._roots, key=lambda each: self._roots[each].heat))

    def _drop(self, root: int) -> None:
        dropped = self._roots.pop(root, None)
        if dropped is not None:
            self._bytes -= len(dropped.hot.request.body)


def _root_of(request: InferenceRequest, prompt: Prompt | None) -> int | None:
    """The last of the root's chained hashes; None for what is not kept."""
    if prompt is None or request.endpoint not in (Endpoint.CHAT, Endpoint.COMPLETIONS):
        return None
    # What a token of text is long is learned; the root must not move with it.
    blocks = ceil(_ROOT_TOKENS / prompt.block_tokens) if prompt.exact else _ROOT_BLOCKS
    if len(prompt.blocks) < blocks or len(request.body) > MAX_BODY_BYTES:
        return None
    return prompt.blocks[blocks - 1]


def _heated(heat: float, now: float) -> float:
    """One request more, at `now`.

    Heat is the logarithm of a sum in which every half-life counts twice the one before: then heats of any
    times compare as they are, and nothing has to decay.
    """
    one = now / HALF_LIFE_S
    high, low = max(heat, one), min(heat, one)
    return high + log2(1 + 2.0 ** (low - high))


def _heat_of(root: _Root) -> float:
    return root.heat


def _is_text(request: InferenceRequest) -> bool:
    """Images and sounds are too much to send for a cache."""
    if request.endpoint is Endpoint.COMPLETIONS:
        return True
    try:
        messages = _MESSAGES.decode(request.members["messages"])
    except msgspec.MsgspecError:
        return False
    parts = (part for message in messages if isinstance(message.content, list) for part in message.content)
    return all(part.type in _TEXT_PARTS for part in parts)
