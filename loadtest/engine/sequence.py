"""One request as the scheduler sees it: its tokens, its blocks, its times."""

import zlib
from collections.abc import Sequence as Many

from loadtest.engine.chain import next_token
from loadtest.engine.kv_cache import chain_hash
from loadtest.engine.sampling import FinishReason, SamplingParams
from loadtest.engine.stats import RequestRecord
from loadtest.engine.tokens import EOS_ID


class Sequence:
    """Prompt and output tokens, `computed` of which are in the KV cache. Times are the caller's seconds."""

    __slots__ = (
        "arrived_s",
        "blocks",
        "cached_tokens",
        "computed",
        "finish_reason",
        "first_token_s",
        "hashes",
        "last_token_s",
        "params",
        "preemptions",
        "prompt_tokens",
        "published",
        "root",
        "scheduled_s",
        "stop_reason",
        "tokens",
        "weights_seed",
    )

    def __init__(
        self, prompt_ids: Many[int], params: SamplingParams, weights_seed: int, arrived_s: float
    ) -> None:
        self.tokens = list(prompt_ids)
        self.prompt_tokens = len(self.tokens)
        self.params = params
        self.weights_seed = weights_seed
        self.arrived_s = arrived_s
        self.root = root_of(params)
        self.computed = 0
        self.cached_tokens = 0
        self.blocks: list[int] = []
        self.hashes: list[int] = []
        self.published = 0
        self.preemptions = 0
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | None = None

    @property
    def output_tokens(self) -> int:
        """Tokens sampled so far, the end token included."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def longest(self) -> int:
        """Tokens at most, prompt and output together."""
        return self.prompt_tokens + self.params.max_tokens

    @property
    def ended(self) -> bool:
        """Whether the last token was sampled, or the end came from outside."""
        return self.finish_reason is not None

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompt is computed."""
        return self.computed >= self.prompt_tokens

    def hash_blocks(self, block_size: int, count: int) -> None:
        """Extend the chained hashes to the first `count` full blocks."""
        for index in range(len(self.hashes), count):
            parent = self.hashes[-1] if self.hashes else self.root
            self.hashes.append(chain_hash(parent, self.tokens[index * block_size : (index + 1) * block_size]))

    def sample(self, now: float) -> int:
        """Append the next token, and set `finish_reason` if it is the last one."""
        params = self.params
        generated = len(self.tokens) - self.prompt_tokens
        token = next_token(self.tokens, self.tokens[-1], generated, self.weights_seed, params)
        self.tokens.append(token)
        self.last_token_s = now
        if generated == 0:
            self.first_token_s = now
        if token == EOS_ID and not (params.ignore_eos and params.forced_ids is None):
            self.finish_reason = "stop"
        elif token in params.stop_token_ids and generated >= params.min_tokens:
            self.finish_reason, self.stop_reason = "stop", token
        elif generated + 1 >= params.max_tokens:
            self.finish_reason = "length"
        return token

    def record(self, ended_s: float) -> RequestRecord:
        """What became of it."""
        return RequestRecord(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens,
            max_tokens=self.params.max_tokens,
            finish_reason=self.finish_reason or "abort",
            arrived_s=self.arrived_s,
            scheduled_s=self.scheduled_s,
            first_token_s=self.first_token_s,
            last_token_s=self.last_token_s,
            ended_s=ended_s,
            preemptions=self.preemptions,
        )


def root_of(params: SamplingParams) -> int:
    """Where the chain of hashes begins: prompts of different adapters or salts share no block."""
    plain = params.lora is None and params.cache_salt is None
    return 0 if plain else zlib.crc32(repr((params.lora, params.cache_salt)).encode())
