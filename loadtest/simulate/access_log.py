"""The router's own access log as a trace: what your users did last week, against another policy.

Of a line of `[server] access_log` it reads

- `time`: ISO 8601, when the request came;
- `prompt_tokens`, `completion_tokens`: lines without them (refused, failed, no usage reported) are left out;
- `session`: optional, what keeps the requests of one conversation together;
- `prefix`: optional, the chained 64-bit hashes of the prompt's blocks, as hex strings or as integers;
- `prefix_block_tokens`: tokens in each of them. The router estimates it from what engines report, so it
  moves a little from line to line; the median stands for all.

A line without `prefix` shares nothing with any other.
"""

from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from loadtest.simulate.json_lines import TraceError, rows_of
from loadtest.simulate.workload import Call, Session, Workload, in_order
from policies.routing.events import Prompt

_BLOCK_TOKENS: Final = 128
"""Where no line says."""
_ALIKE: Final = 2.0
"""Blocks of one text differ by less, however its words are; token ids are in blocks of another kind."""


def read_access_log(path: Path) -> Workload:
    """Raises TraceError, OSError."""
    rows = [
        (number, row)
        for number, row in rows_of(path)
        if row.get("prompt_tokens") and row.get("completion_tokens")
    ]
    if not rows:
        raise TraceError(f"{path}: no line has both prompt_tokens and completion_tokens")
    size = _block_tokens(path, [row.get("prefix_block_tokens") for _, row in rows])
    sessions: list[Session] = []
    for number, row in rows:
        try:
            sessions.append(_session(row, size))
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{path}:{number}: no line of an access log: {error!r}") from None
    earliest = min(session.starts_s for session in sessions)
    moved = [session._replace(starts_s=session.starts_s - earliest) for session in sessions]
    return Workload(path.name, in_order(moved), size)


def _block_tokens(path: Path, said: list[Any]) -> int:
    sizes = [float(size) for size in said if isinstance(size, int | float) and size > 0]
    if not sizes:
        return _BLOCK_TOKENS
    if max(sizes) > _ALIKE * min(sizes):
        raise TraceError(
            f"{path}: blocks of {min(sizes):g} and of {max(sizes):g} tokens cannot be compared; "
            "cut the log in parts"
        )
    return max(1, round(median(sizes)))


def _session(row: dict[str, Any], size: int) -> Session:
    tokens = int(row["prompt_tokens"])
    blocks = tuple(_hash(block) for block in row.get("prefix", ())[: tokens // size])
    call = Call(Prompt(blocks, tokens, size), int(row["completion_tokens"]))
    return Session(datetime.fromisoformat(row["time"]).timestamp(), (call,), row.get("session"))


def _hash(block: str | int) -> int:
    return int(block, 16) if isinstance(block, str) else int(block)
