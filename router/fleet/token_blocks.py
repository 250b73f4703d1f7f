"""Token ids as chained hashes of blocks, equal for a prompt and for what an engine says that it holds.

Engines hash as they like, often with a seed that nobody knows; their events carry token ids, so the router
hashes those itself. xxh3 is no cryptographic hash: a collision would cost a cache hit, never an answer.
"""

import hashlib
from array import array
from collections.abc import Sequence
from typing import Final

from xxhash import xxh3_64_intdigest

_TOKEN_BYTES: Final = array("I").itemsize
_HASH_MASK: Final = (1 << 60) - 1
"""As in `router.fleet.prompts`. All bits are the hash's: an event does not say whose prompt it was."""


class TokenBlocks:
    """Chains over blocks of `unit` tokens. Every process with the same `key` gets equal hashes."""

    def __init__(self, key: bytes, unit: int) -> None:
        self.unit = unit
        digest = hashlib.blake2b(f"tokens by {unit}".encode(), key=key[:64], digest_size=8)
        self._seed = int.from_bytes(digest.digest(), "big")

    def hash(
        self, token_ids: Sequence[int], parent: int | None = None, extra: bytes = b""
    ) -> tuple[int, ...]:
        """One hash per full block; a rest has none.

        `parent`: the hash of the block before, None at the start of a prompt. `extra`: what else must be
        equal. Raises `OverflowError` for what is no token id (0 to 2**32 - 1).
        """
        content = array("I", token_ids).tobytes()
        step = self.unit * _TOKEN_BYTES
        last = self._seed if parent is None else parent
        if extra:
            last = xxh3_64_intdigest(extra, last)
        blocks = []
        for begin in range(0, len(content) - step + 1, step):
            last = xxh3_64_intdigest(content[begin : begin + step], last) & _HASH_MASK
            blocks.append(last)
        return tuple(blocks)
