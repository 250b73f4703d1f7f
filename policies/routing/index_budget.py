"""How many blocks a prefix index may hold within so many bytes."""

from typing import Final

_HASH_BYTES: Final = 32
"""An integer of up to 60 bits in CPython; one of 64 takes 48."""
_ERA_BYTES: Final = 16
_SLOT_BYTES: Final = 20
"""Of a dictionary: 4 in its index, and two thirds of an entry of 24."""
_SLACK: Final = 20


def blocks_within(budget_bytes: int) -> int:
    """How many blocks of hashes of 60 bits an index may hold and stay within `budget_bytes`.

    A dictionary that is full of removed entries is remade for three times what it holds, rounded up to a
    power of two (CPython's `dictobject.c`): 82 bytes a block at first, up to 160 later. Some of the budget
    is left for what an allocator cannot give back.
    """
    best = 0
    budget_bytes -= budget_bytes // _SLACK
    slots = 8
    while slots * _SLOT_BYTES < budget_bytes:
        rest = budget_bytes - slots * _SLOT_BYTES
        best = max(best, min(slots // 3, rest // (_HASH_BYTES + _ERA_BYTES)))
        slots *= 2
    return best
