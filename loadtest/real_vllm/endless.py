"""The most that could be found in caches: one cache for all prompts that forgets nothing."""

from collections.abc import Iterable, Iterator, Sequence

from loadtest.real_vllm.model import END_TURN, ROLES, START_TURN
from loadtest.real_vllm.workloads import Message

_OPENING = (START_TURN, ROLES[-1])
"""With which the prompt asks for an answer."""


class EndlessCache:
    """Whole blocks only, and never a prompt's last token, as in vLLM (`get_computed_blocks`)."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._held: set[int] = set()
        self.prompt_tokens = 0
        self.hit_tokens = 0

    def ask(self, messages: Sequence[Message]) -> None:
        """Count what is held of this prompt, then hold all of it."""
        tokens = [*_tokens(messages), *_OPENING]
        self.prompt_tokens += len(tokens)
        for block in self._blocks(tokens[:-1]):
            if block not in self._held:
                break
            self.hit_tokens += self._block_tokens
        self._held.update(self._blocks(tokens))

    def store(self, messages: Sequence[Message]) -> None:
        """Hold a prompt with its answer."""
        self._held.update(self._blocks([*_tokens(messages)]))

    @property
    def hit_share(self) -> float:
        return self.hit_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def _blocks(self, tokens: Sequence[str]) -> Iterator[int]:
        """Chained hashes."""
        chained = 0
        for end in range(self._block_tokens, len(tokens) + 1, self._block_tokens):
            chained = hash((chained, *tokens[end - self._block_tokens : end]))
            yield chained


def _tokens(messages: Iterable[Message]) -> Iterator[str]:
    """As the chat template of `model` writes them."""
    for message in messages:
        yield from (START_TURN, message.role, *message.content.split(), END_TURN)
