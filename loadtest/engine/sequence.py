"""One request of an engine that answers: its tokens, and the one that comes next."""

import zlib
from collections.abc import Sequence as Many

from loadtest.engine.chain import next_token
from loadtest.engine.kv_cache import chain_hash
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.stats import RequestRecord
from loadtest.engine.tokens import EOS_ID
from loadtest.engine.work import Work


class Sequence(Work):
    """A request with its tokens, and the parameters that say how it goes on."""

    __slots__ = ("params", "root", "stop_reason", "tokens", "weights_seed")

    def __init__(
        self, prompt_ids: Many[int], params: SamplingParams, weights_seed: int, arrived_s: float
    ) -> None:
        super().__init__(
            len(prompt_ids),
            params.max_tokens,
            arrived_s,
            priority=params.priority,
            reuses=params.use_prefix_cache,
        )
        self.tokens = list(prompt_ids)
        self.params = params
        self.weights_seed = weights_seed
        self.root = root_of(params)
        self.stop_reason: int | None = None

    def hash_blocks(self, block_size: int, count: int) -> int:
        for index in range(len(self.hashes), count):
            parent = self.hashes[-1] if self.hashes else self.root
            self.hashes.append(chain_hash(parent, self.tokens[index * block_size : (index + 1) * block_size]))
        return count

    def token_ids(self, start: int, end: int) -> Many[int]:
        return self.tokens[start:end]

    def sample(self, now: float) -> int:
        params = self.params
        generated = len(self.tokens) - self.prompt_tokens
        token = next_token(self.tokens, self.tokens[-1], generated, self.weights_seed, params)
        self.tokens.append(token)
        self.length += 1
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
