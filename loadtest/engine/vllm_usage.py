"""The three usage objects of a vLLM answer: on a chunk, in the last chunk, in a whole answer."""

from collections.abc import Sequence
from typing import Any

from loadtest.engine.core import Generation
from loadtest.engine.vllm_options import VllmOptions
from loadtest.engine.vllm_wire import usage


class UsageReport:
    """Counts of one request. `prompts` are generations of which each stands for another prompt."""

    def __init__(
        self,
        flags: VllmOptions,
        block_size: int,
        prompts: Sequence[Generation],
        generations: Sequence[Generation],
        *,
        created: bool = False,
    ) -> None:
        self._flags = flags
        self._block_size = block_size
        self._prompts = prompts
        self._generations = generations
        self._with_created = created
        """Whether details also tell the tokens that this request added to the cache; chat does."""

    @property
    def cached(self) -> int:
        """Prompt tokens found in the cache."""
        return sum(one.cached_tokens for one in self._prompts)

    @property
    def created(self) -> int:
        """Prompt tokens that fill whole blocks which were not in the cache."""
        size = self._block_size
        return sum(max(0, one.prompt_tokens // size * size - one.cached_tokens) for one in self._prompts)

    def so_far(self, prompt: Generation, generations: Sequence[Generation]) -> dict[str, Any]:
        """On a chunk, with `continuous_usage_stats`: these generations of this prompt."""
        value = usage(prompt.prompt_tokens, sum(one.output_tokens for one in generations))
        return {**value, "completion_tokens_details": None} if self._flags.recent else value

    def last_chunk(self) -> dict[str, Any]:
        """In the chunk without choices."""
        value = self._totals()
        details: dict[str, Any] = {"cached_tokens": self.cached}
        if self._with_created and self._flags.recent:
            details["created_cache_tokens"] = self.created
        if self._shown:
            value["prompt_tokens_details"] = details
        return value

    def whole(self) -> dict[str, Any]:
        """In a whole answer: every field present."""
        details: dict[str, Any] | None = None
        if self._shown:
            details = {"cached_tokens": self.cached}
        if details is not None and self._flags.recent:
            details["created_cache_tokens"] = self.created if self._with_created else None
            details["multimodal_tokens"] = None
        return {**self._totals(), "prompt_tokens_details": details, "completion_tokens_details": None}

    def _totals(self) -> dict[str, Any]:
        prompt_tokens = sum(one.prompt_tokens for one in self._prompts)
        return usage(prompt_tokens, sum(one.output_tokens for one in self._generations))

    @property
    def _shown(self) -> bool:
        """Older versions tell cached tokens only if there are some."""
        return self._flags.enable_prompt_tokens_details and (self._flags.recent or self.cached > 0)
