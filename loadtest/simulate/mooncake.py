"""Traces of kvcache-ai/Mooncake's form: lengths, and one id a block, equal as far as two prompts are."""

from pathlib import Path
from random import Random
from typing import Any

from loadtest.simulate.follow_ups import with_answers
from loadtest.simulate.json_lines import TraceError, rows_of
from loadtest.simulate.workload import Call, Session, Workload, in_order, spread
from policies.routing.events import Prompt


def read_mooncake(
    path: Path,
    random: Random,
    *,
    block_tokens: int = 512,
    stamps_per_s: float = 1e3,
    spread_s: float = 0.0,
) -> Workload:
    """`timestamp` (`stamps_per_s` a second), `input_length`, `output_length`, `hash_ids` (one a block).

    `spread_s`: requests are moved by up to so much, uniformly, where time stamps are coarse. Raises
    TraceError, OSError.
    """
    sessions: list[Session] = []
    for number, row in rows_of(path):
        try:
            call = _call(row, block_tokens)
            starts_s = float(row["timestamp"]) / stamps_per_s + spread_s * random.random()
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{path}:{number}: not of Mooncake's form: {error!r}") from None
        sessions.append(Session(starts_s, (call,)))
    return Workload(path.name, with_answers(in_order(sessions)), block_tokens)


def _call(row: dict[str, Any], block_tokens: int) -> Call:
    """The last id stands for a block that is not full, unless the length is a multiple; it is left out."""
    tokens = int(row["input_length"])
    blocks = tuple(spread(int(block)) for block in row["hash_ids"][: tokens // block_tokens])
    return Call(Prompt(blocks, tokens, block_tokens), max(1, int(row["output_length"])))
