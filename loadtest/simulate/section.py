"""What a goal of the routing benchmark gives: a table, and whether the goal holds."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from loadtest.simulate.job import Answer, Job


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison with what is aimed at. `holds` None: it could not be measured."""

    what: str
    wanted: str
    measured: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[Verdict] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """Who takes part, and how thoroughly."""

    subject: str
    peers: Sequence[str]
    oracle: str
    scenarios: Sequence[str]
    """Those whose traces are there, in the order of the table."""
    seeds: Sequence[int]
    steps: int
    """Of each bisection; every one halves what is open."""

    def of(self, *names: str) -> list[str]:
        """Those of these scenarios that can be run."""
        return [name for name in names if name in self.scenarios]

    @property
    def everybody(self) -> list[str]:
        return [self.subject, *self.peers, self.oracle]


Asking = Generator[list[Job], list[Answer], Section]
"""A goal: it yields jobs, gets their answers, and in the end gives its section."""
