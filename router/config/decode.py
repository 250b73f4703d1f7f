"""From a file to a Config, or to every mistake in it at once.

A configuration is used whole or not at all: `decode` returns a Config without a mistake, or raises.
"""

import os
import re
import tomllib
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from router.config.model import Config
from router.config.option import Place
from router.config.positions import key_lines
from router.config.rules import broken_rules
from router.config.source import ConfigError, KeyPath, Mistake, Source
from router.config.values import Reader

__all__ = ["ConfigError", "Mistake", "decode", "load", "text_in"]


def load(
    path: str | os.PathLike[str],
    *,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration in the file at `path`; its relative paths are relative to it. Raises ConfigError."""
    file = os.fspath(path)
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise ConfigError((Mistake(file, 0, "", f"cannot be read: {error.strerror}"),)) from None
    return decode(text_in(content, file), file, environ=environ, directory=Path(file).resolve().parent)


def text_in(content: bytes, file: str) -> str:
    """What the bytes of a file say. Raises ConfigError."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError((Mistake(file, line, "", "is not UTF-8 text; save it as UTF-8"),)) from None


def decode(
    text: str,
    file: str = "<text>",
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Config:
    """The configuration that `text` states; `file` names it in mistakes. Raises ConfigError.

    `environ` and `directory` are what references are looked up in: by default the process's own, and the
    working directory.
    """
    table, source = _parse(text, file)
    place = Place(directory or Path.cwd(), os.environ if environ is None else environ)
    reader = Reader(place)
    config: Config = reader.read_section((), Config, table)
    unusable = {path for path, _ in reader.found}
    found = reader.found + [broken for broken in broken_rules(config) if not _lies_in(broken[0], unusable)]
    if found:
        mistakes = (source.mistake(path, complaint) for path, complaint in found)
        raise ConfigError(tuple(sorted(mistakes, key=lambda mistake: mistake.line)))
    return replace(config, source=source)


def _lies_in(path: KeyPath, places: Container[KeyPath]) -> bool:
    return any(path[:size] in places for size in range(1, len(path) + 1))


_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$| \(at end of document\)$")


def _parse(text: str, file: str) -> tuple[dict[str, Any], Source]:
    try:
        return tomllib.loads(text), Source(file, key_lines(text))
    except RecursionError:
        mistake = Mistake(file, 1, "", "is nested too deeply")
    except ValueError as error:  # besides its own error, tomllib lets those of int() and of dates through
        mistake = _syntax_mistake(text, file, str(error))
    raise ConfigError((mistake,))


def _syntax_mistake(text: str, file: str, reason: str) -> Mistake:
    where = _AT_LINE.search(reason)
    reason = _AT_LINE.sub("", reason).partition(";")[0]  # what follows is advice to Python programmers
    hint = next((hint for start, hint in _HINTS.items() if reason.startswith(start)), "")
    line = int(where[1]) if where and where[1] else max(1, len(text.splitlines()))
    return Mistake(file, line, "", f"is not valid TOML: {reason}{hint}")


_HINTS = {
    "Invalid value": "; text stands in quotes, numbers, true and false do not",
    "Cannot overwrite a value": "; an option can be written only once",
    "Cannot declare": "; a table can be written only once",
    "Unterminated string": "; its closing quotes are missing",
    "Unclosed array": "; its closing bracket is missing",
    "Expected newline or end of document": "; each option needs a line of its own",
    "Expected '=' after a key": "; an option is written as name = value",
}
