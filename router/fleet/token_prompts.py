"""A request's prompt as the blocks of token ids that engines' KV events speak of."""

from typing import Any

from policies.routing.events import Prompt
from router.api.request import InferenceRequest
from router.engines.kv_cache_events import extra_of
from router.engines.members import value_of
from router.fleet.token_blocks import TokenBlocks
from router.fleet.tokenizing import Tokenizer


class TokenPrompts:
    """For one version. `adapter` needs no place here: events of others are not heard."""

    def __init__(self, tokenizer: Tokenizer, blocks: TokenBlocks) -> None:
        self._tokenizer = tokenizer
        self._blocks = blocks

    def prompt_of(self, request: InferenceRequest) -> Prompt | None:
        """None where the ids are not known; its text can still be hashed."""
        try:
            ids = self._tokenizer.ids_of(request)
            if ids is None:
                return None
            blocks = self._blocks.hash(ids, extra=_salt(request))
        except OverflowError:
            # A number among the token ids that none of them has.
            return None
        return Prompt(blocks, len(ids), self._blocks.unit, exact=True)


def _salt(request: InferenceRequest) -> bytes:
    """As vLLM's events tell it of a prompt's first block."""
    salt: Any = value_of(request, "cache_salt")
    return extra_of([salt]) if isinstance(salt, str) and salt else b""
