"""The router's own access log as a trace: what your users did last week, against another policy.

Of a line of `[server] access_log` it reads

- `time`: ISO 8601, when the request came;
- `prompt_tokens`, `completion_tokens`: lines without them (refused, failed, no usage reported) are left out;
- `session`: optional, what keeps the requests of one conversation together;
- `prefix`: optional, the chained 64-bit hashes of the prompt's blocks, as hex strings or as integers;
- `prefix_block_tokens`: tokens in each of them, the same in all lines.

A line without `prefix` shares nothing with any other.
"""

from datetime import datetime
from pathlib import Path
from typing import Any, Final

from loadtest.simulate.json_lines import TraceError, rows_of
from loadtest.simulate.workload import Call, Session, Workload, in_order
from policies.routing.events import Prompt

_BLOCK_TOKENS: Final = 128
"""Where no line says."""


def read_access_log(path: Path) -> Workload:
    """Raises TraceError, OSError."""
    sessions: list[Session] = []
    sizes: set[int] = set()
    for number, row in rows_of(path):
        if not row.get("prompt_tokens") or not row.get("completion_tokens"):
            continue
        try:
            sessions.append(_session(row))
            if "prefix_block_tokens" in row:
                sizes.add(round(row["prefix_block_tokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{path}:{number}: no line of an access log: {error!r}") from None
    if not sessions:
        raise TraceError(f"{path}: no line has both prompt_tokens and completion_tokens")
    if len(sizes) > 1:
        raise TraceError(f"{path}: blocks of {sorted(sizes)} tokens cannot be compared; cut the log in parts")
    earliest = min(session.starts_s for session in sessions)
    moved = [session._replace(starts_s=session.starts_s - earliest) for session in sessions]
    return Workload(path.name, in_order(moved), sizes.pop() if sizes else _BLOCK_TOKENS)


def _session(row: dict[str, Any]) -> Session:
    tokens, size = int(row["prompt_tokens"]), round(row.get("prefix_block_tokens", _BLOCK_TOKENS))
    blocks = tuple(_hash(block) for block in row.get("prefix", ())[: tokens // size])
    call = Call(Prompt(blocks, tokens, size), int(row["completion_tokens"]))
    return Session(datetime.fromisoformat(row["time"]).timestamp(), (call,), row.get("session"))


def _hash(block: str | int) -> int:
    return int(block, 16) if isinstance(block, str) else int(block)
