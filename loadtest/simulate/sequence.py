"""A request on a virtual replica: lengths and block hashes, no tokens."""

from collections.abc import Sequence as Many

from loadtest.engine.kv_cache import chain_hash
from loadtest.engine.work import Work

NO_TOKEN = 0
_OWN = -1
"""No seed of a text: what is hashed by its ticket is like no text's hash."""


class VirtualSequence(Work):
    """Generates exactly `completion_tokens` tokens that are nothing but counted.

    `hashes` are the chained hashes of its full blocks: of the prompt, and of the answer behind it as far as
    they are known. Blocks beyond those are cached as an engine caches them, and nobody asks for them again.
    """

    __slots__ = ("ticket",)

    def __init__(
        self, ticket: int, prompt_tokens: int, completion_tokens: int, hashes: Many[int], arrived_s: float
    ) -> None:
        super().__init__(prompt_tokens, completion_tokens, arrived_s)
        self.ticket = ticket
        self.hashes = list(hashes)

    def hash_blocks(self, block_size: int, count: int) -> int:  # noqa: ARG002
        self.hashes += [chain_hash(self.ticket, (_OWN, index)) for index in range(len(self.hashes), count)]
        return count

    def token_ids(self, start: int, end: int) -> Many[int]:  # noqa: ARG002
        return ()

    def sample(self, now: float) -> int:
        return self.sample_many(1, now)

    def sample_many(self, count: int, now: float) -> int:
        if self.first_token_s is None:
            self.first_token_s = now
        self.length += count
        self.last_token_s = now
        if self.length >= self.longest:
            self.finish_reason = "length"
        return NO_TOKEN
