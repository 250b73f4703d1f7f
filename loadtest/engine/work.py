"""One request as the scheduler sees it: how long it is, which blocks it holds, when what happened.

What its tokens are is the subclass's business: real ones for engines that answer, none at all where only
time matters.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Many

from loadtest.engine.sampling import FinishReason


class Work(ABC):
    """`length` tokens, prompt and output, of which `computed` are in the KV cache.

    Times are the caller's seconds.
    """

    __slots__ = (
        "arrived_s",
        "blocks",
        "cached_tokens",
        "computed",
        "finish_reason",
        "first_token_s",
        "hashes",
        "last_token_s",
        "length",
        "loaded_tokens",
        "longest",
        "preemptions",
        "priority",
        "prompt_tokens",
        "published",
        "reuses",
        "scheduled_s",
    )

    def __init__(
        self,
        prompt_tokens: int,
        max_tokens: int,
        arrived_s: float,
        *,
        priority: int = 0,
        reuses: bool = True,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.length = prompt_tokens
        self.longest = prompt_tokens + max_tokens
        """Tokens at most, prompt and output together."""
        self.arrived_s = arrived_s
        self.priority = priority
        self.reuses = reuses
        """Whether it may find and leave blocks in the prefix cache."""
        self.computed = 0
        self.cached_tokens = 0
        """Found at its first admission, in the cache or in the tier behind it."""
        self.loaded_tokens = 0
        """Copied in from that tier at its latest admission."""
        self.blocks: list[int] = []
        self.hashes: list[int] = []
        self.published = 0
        self.preemptions = 0
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.finish_reason: FinishReason | None = None

    @property
    def output_tokens(self) -> int:
        """Tokens sampled so far, the end token included."""
        return self.length - self.prompt_tokens

    @property
    def ended(self) -> bool:
        """Whether the last token was sampled, or the end came from outside."""
        return self.finish_reason is not None

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompt is computed."""
        return self.computed >= self.prompt_tokens

    @abstractmethod
    def hash_blocks(self, block_size: int, count: int) -> int:
        """See to the chained hashes of the first `count` full blocks; how many of those are known."""

    @abstractmethod
    def token_ids(self, start: int, end: int) -> Many[int]:
        """The tokens of that range; none where nobody knows them."""

    @abstractmethod
    def sample(self, now: float) -> int:
        """Append the next token, and set `finish_reason` if it is the last one."""

    def sample_many(self, count: int, now: float) -> int:
        """Append `count` tokens, of which none but the last may be the last one; that one."""
        for _ in range(count - 1):
            self.sample(now)
        return self.sample(now)
