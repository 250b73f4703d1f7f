"""Text that nobody wrote: pieces of so many tokens, and the block hashes that a prompt made of them has."""

from loadtest.engine.kv_cache import chain_hash
from policies.routing.events import Prompt


class Transcript:
    """Pieces in a row. Two transcripts have equal blocks as far as they are made of the same pieces."""

    def __init__(self, block_tokens: int) -> None:
        self.tokens = 0
        self._block_tokens = block_tokens
        self._blocks: list[int] = []
        self._open: list[int] = []
        """The beginning of the block that is not full: seed and offset of each part."""

    def append(self, seed: int, tokens: int) -> None:
        """A piece; one seed always means the same text."""
        size = self._block_tokens
        offset = 0
        while offset < tokens:
            part = min(size - self.tokens % size, tokens - offset)
            self._open += (seed, offset)
            offset += part
            self.tokens += part
            if self.tokens % size == 0:
                self._blocks.append(chain_hash(self._blocks[-1] if self._blocks else 0, self._open))
                self._open = []

    @property
    def prompt(self) -> Prompt:
        """As it is now."""
        return Prompt(tuple(self._blocks), self.tokens, self._block_tokens)
