"""Sessions of text, one file each, as LMCache/lmcache-agent-trace has them: replayed as a closed loop.

A call is sent when the one before has ended and the recorded time between the two has passed; that includes
the time the recorded model took, which nobody wrote down.
"""

import tarfile
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from loadtest.simulate.json_lines import TraceError, rows_in
from loadtest.simulate.workload import Call, Session, Workload, in_order
from policies.routing.events import Prompt

BLOCK_TOKENS: Final = 64
_CHARS_PER_TOKEN: Final = 4
_BLOCK_CHARS: Final = BLOCK_TOKENS * _CHARS_PER_TOKEN


def read_agent_trace(path: Path) -> Workload:
    """`timestamp` (us), `input`, `output` a line; a tar archive of `.jsonl` files, or a folder of them.

    Raises TraceError, OSError.
    """
    sessions = [_session(name, lines) for name, lines in _files(path)]
    if not sessions:
        raise TraceError(f"{path}: there is no .jsonl file in it")
    earliest = min(session.starts_s for session in sessions)
    moved = [session._replace(starts_s=session.starts_s - earliest) for session in sessions]
    return Workload(path.name, in_order(moved), BLOCK_TOKENS)


def _files(path: Path) -> Iterator[tuple[str, Iterable[bytes]]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.jsonl")):
            yield file.stem, file.read_bytes().splitlines()
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                lines = archive.extractfile(member) if member.name.endswith(".jsonl") else None
                if lines is not None:
                    yield Path(member.name).stem, lines
    except tarfile.TarError as error:
        raise TraceError(f"{path}: no tar archive: {error}") from None


def _session(name: str, lines: Iterable[bytes]) -> Session:
    try:
        rows = sorted((row for _, row in rows_in(lines, name)), key=lambda row: float(row["timestamp"]))
        calls = [_call(row, before) for row, before in zip(rows, [None, *rows], strict=False)]
        return Session(float(rows[0]["timestamp"]) / 1e6, calls, name)
    except (KeyError, TypeError, IndexError) as error:
        raise TraceError(f"{name}: no session of calls: {error!r}") from None


def _call(row: dict[str, Any], before: dict[str, Any] | None) -> Call:
    text, answer = row["input"], row["output"]
    think_s = 0.0 if before is None else (float(row["timestamp"]) - float(before["timestamp"])) / 1e6
    prompt = Prompt(text_blocks(text), _tokens(text), BLOCK_TOKENS)
    return Call(prompt, _tokens(answer), max(0.0, think_s), text_blocks(text + answer))


def _tokens(text: str) -> int:
    return max(1, len(text) // _CHARS_PER_TOKEN)


def text_blocks(text: str) -> tuple[int, ...]:
    """Chained 64-bit hashes, one for each full block of 256 characters."""
    blocks: list[int] = []
    parent = b""
    for start in range(0, len(text) - _BLOCK_CHARS + 1, _BLOCK_CHARS):
        part = text[start : start + _BLOCK_CHARS].encode("utf-8", "surrogatepass")
        parent = blake2b(parent + part, digest_size=8).digest()
        blocks.append(int.from_bytes(parent, "big"))
    return tuple(blocks)
