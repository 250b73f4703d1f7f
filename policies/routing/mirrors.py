"""The caches of a fleet as far as a router can know them: what was sent there, as much as they can hold."""

from collections.abc import Mapping, Sequence
from typing import Final

from policies.routing.events import Prompt
from policies.routing.index_budget import blocks_within
from policies.routing.knowledge import Mirror
from policies.routing.prefix_index import PrefixIndex

NO_PROMPT: Final = Prompt((), 0, 1)
_USUAL_BLOCK_TOKENS: Final = 128.0
_COARSER: Final = 2.0
"""Blocks above this many times the usual size are text among token ids, and tell nothing of the others."""
_DRIFT: Final = 0.05
"""Share by which blocks are of another size than thought; answers tell how many tokens a text is."""
_CHUNK: Final = 64


class Truth:
    """Predicted against reported cached tokens of one replica, and what follows from the difference.

    A mirror that promises more than the engine keeps is too large, one that promises less too small: its
    capacity moves by `step` an answer. Answers that found nothing where much was expected, one after the
    other, are a cache that was flushed.
    """

    __slots__ = ("_step", "_streak", "factor")

    STREAK: Final = 4
    LEAST: Final = 0.1
    MOST: Final = 8.0

    def __init__(self, step: float) -> None:
        self._step = step
        self._streak = 0
        self.factor = 1.0
        """What the engine's own size is multiplied by."""

    def compare(self, predicted: float, reported: float, block_tokens: float) -> bool:
        """One answer. True: the cache was flushed, and nothing is known of it any more."""
        if predicted > reported + block_tokens:
            self.factor = max(self.factor * (1 - self._step), self.LEAST)
        elif reported > predicted + block_tokens:
            self.factor = min(self.factor * (1 + self._step), self.MOST)
        if predicted > 4 * block_tokens and reported < 0.25 * predicted:
            self._streak += 1
        else:
            self._streak = 0
        if self._streak < self.STREAK:
            return False
        self._streak = 0
        return True


class Mirrors:
    """One of each replica's cache. `usual_tokens` is its size until told better; `index_bytes` bounds all.

    `offload_tokens` stand behind each cache; `step` is how fast sizes follow what answers report.
    """

    def __init__(
        self, usual_tokens: float, offload_tokens: float, index_bytes: int, scope_share: float, step: float
    ) -> None:
        self._usual_tokens = usual_tokens
        self._offload_tokens = offload_tokens
        self._bound = blocks_within(index_bytes)
        self._scope_share = scope_share
        self._step = step
        self._index: PrefixIndex | None = None
        self._tokens: dict[str, float] = {}
        self._truths: dict[str, Truth] = {}
        self.block_tokens = _USUAL_BLOCK_TOKENS
        self.predicted_tokens = 0.0
        self.reported_tokens = 0.0
        """Cached tokens, of all answers whose engine said how many there were."""
        # The walk along a prompt serves the choice and the event that follows it.
        self._walked: tuple[Prompt, Mapping[str, int]] = (NO_PROMPT, {})

    def hits(self, prompt: Prompt) -> Mapping[str, int]:
        """Blocks of the prompt that each replica holds from its beginning; those with none are absent."""
        if self._walked[0] is not prompt:
            self._walked = prompt, {} if self._index is None else self._index.match(prompt.blocks)
        return self._walked[1]

    def store(self, replica: str, prompt: Prompt) -> None:
        """The replica will hold it."""
        if not prompt.blocks:
            return
        index = self._index or self._make_index(prompt.block_tokens)
        ratio = prompt.block_tokens / self.block_tokens
        if ratio < _COARSER and abs(ratio - 1) > _DRIFT:
            # Of other text, or of token ids: a cache holds another number of them than thought.
            self._set_block_tokens(prompt.block_tokens)
        index.insert(replica, prompt.blocks)
        self._walked = (NO_PROMPT, {})

    def remove(self, replica: str, blocks: Sequence[int]) -> None:
        """The replica said that it no longer holds these."""
        if self._index is not None:
            self._index.remove(replica, blocks)
            self._walked = (NO_PROMPT, {})

    def forget(self, replica: str) -> None:
        """The replica holds nothing."""
        self._walked = (NO_PROMPT, {})
        if self._index is not None:
            self._index.forget(replica)
            self._resize(replica)

    def set_size(self, replica: str, tokens: float) -> None:
        """The engine said how large its cache is."""
        self._tokens[replica] = tokens
        self._resize(replica)

    def compare(self, replica: str, predicted: float, reported: float) -> None:
        """An answer's cached tokens, as foreseen and as they were."""
        self.predicted_tokens += predicted
        self.reported_tokens += reported
        self._correct(replica, predicted, reported)

    def suspect(self, replica: str, predicted: float, *, cold: bool) -> None:
        """An answer whose engine does not report: by its time, it found what was foreseen, or nothing."""
        self._correct(replica, predicted, 0.0 if cold else predicted)

    def _correct(self, replica: str, predicted: float, reported: float) -> None:
        if self._truth(replica).compare(predicted, reported, self.block_tokens):
            self.forget(replica)
        else:
            self._resize(replica)

    def dump(self) -> list[Mirror]:
        """All of them."""
        index = self._index
        return [
            Mirror(replica, self._size(replica), self._truth(replica).factor, index.held(replica))
            for replica in (index.sizes() if index is not None else ())
            if index is not None
        ]

    def load(self, mirrors: Sequence[Mirror], block_tokens: float) -> None:
        """Take over another's, beside what is known here."""
        for mirror in mirrors:
            self._truth(mirror.replica).factor = mirror.factor
            self.set_size(mirror.replica, mirror.tokens)
            # The newest go in last.
            for begin in range(0, len(mirror.blocks), _CHUNK):
                part = tuple(reversed(mirror.blocks[begin : begin + _CHUNK]))
                self.store(mirror.replica, Prompt(part, 0, block_tokens))

    # ---- inside ----

    def _make_index(self, block_tokens: float) -> PrefixIndex:
        capacity = max(1, int((self._usual_tokens + self._offload_tokens) / block_tokens))
        self._index = PrefixIndex(self._bound, capacity, self._scope_share)
        self._set_block_tokens(block_tokens)
        return self._index

    def _set_block_tokens(self, block_tokens: float) -> None:
        self.block_tokens = block_tokens
        held = self._index.sizes() if self._index is not None else {}
        for replica in {*self._tokens, *self._truths, *held}:
            self._resize(replica)

    def _truth(self, replica: str) -> Truth:
        known = self._truths.get(replica)
        if known is None:
            known = self._truths[replica] = Truth(self._step)
        return known

    def _size(self, replica: str) -> float:
        return self._tokens.get(replica, self._usual_tokens)

    def _resize(self, replica: str) -> None:
        if self._index is None:
            return
        tokens = (self._size(replica) + self._offload_tokens) * self._truth(replica).factor
        blocks = max(1, int(tokens / self.block_tokens))
        if blocks != self._index.capacity_of(replica):
            self._index.resize(replica, blocks)
