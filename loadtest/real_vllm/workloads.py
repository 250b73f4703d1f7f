"""The workloads, as data and as the turns they are made of; a word is a token of `model`.

A closed loop: each client sends its next turn when its last one is answered. Equal seeds make equal texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple, Protocol, Self

from loadtest.real_vllm.model import words
from loadtest.simulate.chats import draw, zipf_weights

ANSWER_TOKENS = 8


class Message(NamedTuple):
    role: str
    content: str


class Turn(NamedTuple):
    """`said` goes to the end of the session's messages, which are then the prompt."""

    session: int
    said: tuple[Message, ...]


class Workload(Protocol):
    """As many turns are in flight as there are clients."""

    @property
    def name(self) -> str: ...

    @property
    def what(self) -> str: ...

    def turns(self, random: Random) -> list[list[Turn]]:
        """For each client its own, in order; no session is another client's too."""
        ...

    def smaller(self) -> Self:
        """A fraction of the turns: to warm up, and for a quick look."""
        ...


@dataclass(frozen=True, slots=True)
class Conversations:
    """Each session grows by a message and an answer a turn; nothing is shared between sessions."""

    name: str
    what: str
    clients: int
    sessions: int
    """A multiple of `clients`."""
    turns_each: int
    message_words: tuple[int, int]

    def turns(self, random: Random) -> list[list[Turn]]:
        return [self._client(client, random) for client in range(self.clients)]

    def _client(self, client: int, random: Random) -> list[Turn]:
        """The order within a round of turns is drawn: a fixed one would make `round_robin` sticky."""
        turns: list[Turn] = []
        sessions = range(client, self.sessions, self.clients)
        for _ in range(self.turns_each):
            for session in random.sample(sessions, len(sessions)):
                said = Message("user", text(random.randint(*self.message_words), random))
                turns.append(Turn(session, (said,)))
        return turns

    def smaller(self) -> Self:
        return replace(self, sessions=self.clients, turns_each=min(3, self.turns_each))


@dataclass(frozen=True, slots=True)
class SharedPrompts:
    """Every request is a session of its own: a system prompt, drawn by Zipf's law, and a unique question."""

    name: str
    what: str
    clients: int
    prompts: int
    prompt_words: int
    exponent: float
    requests: int
    question_words: tuple[int, int]

    def turns(self, random: Random) -> list[list[Turn]]:
        prompts = [Message("system", text(self.prompt_words, random)) for _ in range(self.prompts)]
        weights = zipf_weights(self.prompts, self.exponent)
        turns: list[Turn] = []
        for number in range(self.requests):
            question = Message("user", text(random.randint(*self.question_words), random))
            turns.append(Turn(number, (prompts[draw(weights, random)], question)))
        return [turns[client :: self.clients] for client in range(self.clients)]

    def smaller(self) -> Self:
        return replace(self, requests=self.requests // 8)


WORKLOADS: Sequence[Workload] = (
    Conversations("chat", "32 conversations of 6 turns, 100 to 230 new tokens each", 8, 32, 6, (100, 230)),
    SharedPrompts("shared", "32 system prompts of 1,000 tokens, Zipf", 8, 32, 1000, 1.0, 192, (20, 60)),
)
"""Their prompts together are about 34,000 tokens each: three times what one replica's cache holds."""


def text(count: int, random: Random) -> str:
    """So many words."""
    return " ".join(random.choices(words(), k=count))


def workloads_named(names: str) -> tuple[Workload, ...]:
    """The workloads in a comma-separated list, in the table's order. Raises ValueError for another name."""
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    known = [workload.name for workload in WORKLOADS]
    if unknown := sorted(wanted.difference(known)):
        raise ValueError(f"unknown workload {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(workload for workload in WORKLOADS if workload.name in wanted)
