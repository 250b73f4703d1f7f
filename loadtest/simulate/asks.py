"""What is asked of a simulated fleet: prompts as blocks, at their times or after one another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

from policies.routing.events import Prompt


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `at` is seconds from the beginning; of a later turn, from the end of the turn before it.

    `answer` is prompt and answer together, where the trace tells: what the engine then holds.
    """

    at: float
    prompt: Prompt
    output_tokens: int
    session: str | None = None
    answer: Prompt | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in their order; the first is at its own time, each later one follows the answer before it."""

    turns: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """All that is asked, and the length of a block in tokens."""

    name: str
    conversations: tuple[Conversation, ...]
    block_tokens: int

    @property
    def requests(self) -> int:
        return sum(len(each.turns) for each in self.conversations)


def open_loop(name: str, asks: Iterable[Ask], block_tokens: int) -> Workload:
    """Every request comes at its time, whatever became of the others."""
    ordered = sorted(asks, key=_time_of)
    return Workload(name, tuple(Conversation((ask,)) for ask in ordered), block_tokens)


def faster(workload: Workload, factor: float) -> Workload:
    """Arrivals `factor` times as dense; what follows an answer follows as soon as before."""
    conversations = [
        Conversation((replace(each.turns[0], at=each.turns[0].at / factor), *each.turns[1:]))
        for each in workload.conversations
    ]
    return replace(workload, conversations=tuple(conversations))


def shortened(workload: Workload, share: float) -> Workload:
    """The first part of it."""
    kept = workload.conversations[: max(1, round(len(workload.conversations) * share))]
    return replace(workload, conversations=kept)


def chained(names: Sequence[object], salt: int = 0) -> tuple[int, ...]:
    """60-bit chained hashes: equal as far as the names are; and in every process, if they are numbers."""
    parent = salt
    chain = []
    for name in names:
        parent = hash((parent, name)) & (1 << 60) - 1
        chain.append(parent)
    return tuple(chain)


def poisson(count: int, per_s: float, random: Random) -> list[float]:
    """Arrival times of a Poisson process, seconds."""
    at = 0.0
    times = []
    for _ in range(count):
        at += random.expovariate(per_s)
        times.append(at)
    return times


def _time_of(ask: Ask) -> float:
    return ask.at
