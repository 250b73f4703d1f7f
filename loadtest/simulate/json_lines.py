"""Files of one JSON object a line, plain or compressed by gzip."""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast


class TraceError(ValueError):
    """A file is no trace of the form that it is read as; the message names the line."""


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that is not empty. Raises TraceError, OSError."""
    with path.open("rb") as start:
        packed = start.read(2) == b"\x1f\x8b"
    with cast("BinaryIO", gzip.open(path)) if packed else path.open("rb") as lines:
        yield from rows_in(lines, str(path))


def rows_in(lines: Iterable[bytes], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same of lines that are open already; `name` is what mistakes are told by."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TraceError(f"{name}:{number}: no JSON: {error}") from None
        if not isinstance(row, dict):
            raise TraceError(f"{name}:{number}: an object is expected")
        yield number, row
