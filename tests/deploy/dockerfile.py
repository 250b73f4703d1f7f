"""Reads a Dockerfile: the instructions that ours uses, and an error for any other.

Continued lines are joined and the exec forms are decoded, so that what a test sees is what a build does.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")
_FLAGS = {"COPY": {"from"}, "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"}}
_KEYWORDS = {
    "ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT",
    "CMD",
}  # fmt: skip


class UnknownInstruction(Exception):
    """Something that is not read here, and so cannot be proven either."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """`text` is what follows keyword and flags, on one line."""

    keyword: str
    text: str
    flags: Mapping[str, str]

    @property
    def words(self) -> tuple[str, ...]:
        """The exec form if it is one, else the words of the line."""
        if self.text.startswith("["):
            return tuple(json.loads(self.text))
        return tuple(shlex.split(self.text))


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next. `name` is empty for a stage that nothing refers to."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, keyword: str) -> tuple[Instruction, ...]:
        return tuple(each for each in self.instructions if each.keyword == keyword)

    def last(self, keyword: str) -> Instruction:
        """The one that counts; raises IndexError without any."""
        return self.all(keyword)[-1]


def parse(text: str) -> tuple[Stage, ...]:
    """All stages, with the defaults of the ARGs before the first FROM in place. Raises UnknownInstruction."""
    arguments: dict[str, str] = {}
    stages: list[tuple[str, str, list[Instruction]]] = []
    for each in _instructions(text):
        if each.keyword == "FROM":
            base, _, name = each.text.partition(" AS ")
            stages.append((filled_in(base, arguments), name, []))
        elif stages:
            stages[-1][2].append(each)
        elif each.keyword == "ARG":
            name, _, default = each.text.partition("=")
            arguments[name] = default
        else:
            raise UnknownInstruction(f"{each.keyword} before the first FROM")
    return tuple(Stage(base, name, tuple(instructions)) for base, name, instructions in stages)


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """`${NAME}` replaced; raises KeyError for a name that nobody set."""
    return re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], text)


def _instructions(text: str) -> Iterator[Instruction]:
    lines = (line.strip() for line in text.splitlines())
    joined = "\n".join(line for line in lines if line and not line.startswith("#")).replace("\\\n", "")
    for line in joined.splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword not in _KEYWORDS:
            raise UnknownInstruction(keyword)
        flags = {}
        while match := _FLAG.match(rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        if unknown := flags.keys() - _FLAGS.get(keyword, set()):
            raise UnknownInstruction(f"{keyword} --{unknown.pop()}")
        yield Instruction(keyword, rest.strip(), flags)
