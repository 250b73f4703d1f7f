"""The line of every key in a TOML text, which `tomllib` does not tell.

It reads text that `tomllib` has accepted, so it only has to find where things stand, not to judge them.
"""

import re
import tomllib
from bisect import bisect_left

from router.config.source import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'  # up to two quotes may stand right before the closing three
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*|[^\s,\]}#]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line, from 1, of every table, option and array entry. `text` must be TOML that `tomllib` accepts.

    A table stands at its own header, else where it is first mentioned: `[a.b]` also places `a`.
    """
    scanner = _Scanner(text)
    scanner.read_document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._entries: dict[KeyPath, int] = {}  # how many `[[name]]` headers each array of tables has so far

    def read_document(self) -> None:
        table: KeyPath = ()
        while self._skip_blank():
            if self._sees("["):
                table = self._read_header()
            else:
                self._read_pair(table)

    def _read_header(self) -> KeyPath:
        line = self._line()
        brackets = "[[" if self._sees("[[") else "["
        self._at += len(brackets)
        *parents, name = self._read_dotted_key()
        self._at += len(brackets)
        path = (*self._place_parents((), parents, line), name)
        if brackets == "[":
            self.lines[path] = line
            return path
        return self._add_entry(path, line)

    def _add_entry(self, path: KeyPath, line: int) -> KeyPath:
        index = self._entries.get(path, 0)
        self._entries[path] = index + 1
        self.lines.setdefault(path, line)
        self.lines[(*path, index)] = line
        return (*path, index)

    def _place_parents(self, table: KeyPath, parents: list[str], line: int) -> KeyPath:
        """The table that `parents` leads to; a name of an array of tables means its last entry."""
        for parent in parents:
            table = (*table, parent)
            self.lines.setdefault(table, line)
            if table in self._entries:
                table = (*table, self._entries[table] - 1)
        return table

    def _read_pair(self, table: KeyPath) -> None:
        line = self._line()
        *parents, name = self._read_dotted_key()
        self._at += 1  # the equals sign
        self._skip_blank()
        path = (*self._place_parents(table, parents, line), name)
        self.lines[path] = line
        self._read_value(path)

    def _read_dotted_key(self) -> list[str]:
        """Stands on what follows the key afterwards: an equals sign or a closing bracket."""
        names = []
        while True:
            self._skip_blank()
            names.append(self._read_key())
            self._skip_blank()
            if not self._sees("."):
                return names
            self._at += 1

    def _read_key(self) -> str:
        if not self._sees('"', "'"):
            return self._take(_BARE_KEY)
        name = tomllib.loads(f"name = {self._take(_STRING)}")["name"]
        return str(name)

    def _read_value(self, path: KeyPath) -> None:
        if self._sees("["):
            self._read_array(path)
        elif self._sees("{"):
            self._read_inline_table(path)
        elif self._sees('"', "'"):
            self._take(_STRING)
        else:
            self._take(_SCALAR)

    def _read_array(self, path: KeyPath) -> None:
        index = 0
        self._at += 1
        while self._skip_blank() and not self._sees("]"):
            if self._sees(","):
                self._at += 1
                continue
            self.lines[(*path, index)] = self._line()
            self._read_value((*path, index))
            index += 1
        self._at += 1

    def _read_inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip_blank() and not self._sees("}"):
            if self._sees(","):
                self._at += 1
            else:
                self._read_pair(path)
        self._at += 1

    def _skip_blank(self) -> bool:
        """Steps over white space and comments; False at the end of the text."""
        self._take(_BLANK)
        return self._at < len(self._text)

    def _sees(self, *starts: str) -> bool:
        return self._text.startswith(starts, self._at)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"no valid TOML at offset {self._at}")
        self._at = match.end()
        return match[0]

    def _line(self) -> int:
        return bisect_left(self._newlines, self._at) + 1
