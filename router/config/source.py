"""Where a configuration came from: the file, and the line of every key in it."""

from collections.abc import Mapping
from dataclasses import dataclass

from router.config.toml_text import toml_key

KeyPath = tuple[str | int, ...]
"""A place in the file: names of tables and options, indexes of array entries."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a configuration. `line` counts from 1; 0 when there is no text to point into."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class ConfigError(Exception):
    """A configuration that cannot be used. `mistakes` are all there are, in the order of the file."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Source:
    """A file and the lines of its keys."""

    file: str
    lines: Mapping[KeyPath, int]

    def wrote(self, path: KeyPath) -> bool:
        """Whether the file itself states this option or table."""
        return path in self.lines

    def mistake(self, path: KeyPath, text: str) -> Mistake:
        """A mistake at the nearest place the file states: the option itself, else the table it belongs to."""
        return Mistake(self.file, self._line(path), dotted(path), text)

    def _line(self, path: KeyPath) -> int:
        nearest = (self.lines[path[:size]] for size in range(len(path), 0, -1) if path[:size] in self.lines)
        return next(nearest, 1)


NOWHERE = Source("<built>", {})


def dotted(path: KeyPath) -> str:
    """A path as users read it: `models.llama-8b.versions.v1.replicas[0].url`; odd names are quoted."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{toml_key(part)}" for part in path
    ).removeprefix(".")
