"""What is asked of a fleet, and when: sessions of one call or several.

A trace without sessions is one session a call. In a longer one each call waits for the one before, as agents
and chats do.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from policies.routing.events import Prompt

_GOLDEN: int = 0x9E3779B97F4A7C15
_MASK: int = 0xFFFFFFFFFFFFFFFF


def spread(number: int) -> int:
    """A 64-bit hash of a small number, a bijection (Knuth's multiplicative hashing, the golden ratio)."""
    return (number + 1) * _GOLDEN & _MASK


class Call(NamedTuple):
    """One request. `answer`: the hashes of prompt and answer together, () where nobody knows them."""

    prompt: Prompt
    completion_tokens: int
    think_s: float = 0.0
    """From the end of the call before to this one."""
    answer: Sequence[int] = ()
    answer_seen: bool = True
    """Whether a router would see the answer's text; else only the engine knows what it computed."""
    seen: Prompt | None = None
    """The prompt in a router's own blocks, with its own guess of the length; None: as the engine has it."""


class Session(NamedTuple):
    """Calls one after the other, the first at `starts_s`; `name` None where nothing shows who it is."""

    starts_s: float
    calls: Sequence[Call]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """Sessions in the order of their start."""

    name: str
    sessions: Sequence[Session]
    block_tokens: int

    def __len__(self) -> int:
        """Calls."""
        return sum(len(session.calls) for session in self.sessions)

    @property
    def calls(self) -> Iterator[Call]:
        return (call for session in self.sessions for call in session.calls)

    def faster(self, speed: float) -> "Workload":
        """Sessions start `speed` times as often; think times stay."""
        return replace(self, sessions=[s._replace(starts_s=s.starts_s / speed) for s in self.sessions])

    def first(self, calls: int) -> "Workload":
        """The sessions that hold the first `calls` calls, whole."""
        kept: list[Session] = []
        for session in self.sessions:
            if calls <= 0:
                break
            kept.append(session)
            calls -= len(session.calls)
        return replace(self, sessions=kept)

    def fitting(self, tokens: int) -> "Workload":
        """Without the calls that are longer than `tokens`, answer included."""
        kept = [
            session._replace(calls=[call for call in session.calls if _length(call) <= tokens])
            for session in self.sessions
        ]
        return replace(self, sessions=[session for session in kept if session.calls])

    def copied(self, copies: int, sessions_per_s: float, random: Random) -> "Workload":
        """`copies` of every session that share nothing with each other, starting as a Poisson process."""
        drawn = [(copy, session) for copy in range(copies) for session in self.sessions]
        random.shuffle(drawn)
        starts = poisson(len(drawn), sessions_per_s, random)
        return replace(
            self,
            sessions=[
                _salted(session, spread(copy), starts_s)
                for (copy, session), starts_s in zip(drawn, starts, strict=True)
            ],
        )


def poisson(count: int, per_s: float, random: Random) -> list[float]:
    """`count` arrival times of a Poisson process, seconds."""
    now = 0.0
    times: list[float] = []
    for _ in range(count):
        now += random.expovariate(per_s)
        times.append(now)
    return times


def in_order(sessions: Iterable[Session]) -> list[Session]:
    return sorted(sessions, key=lambda session: session.starts_s)


def _length(call: Call) -> int:
    return call.prompt.tokens + call.completion_tokens


def _salted(session: Session, salt: int, starts_s: float) -> Session:
    calls = [
        call._replace(
            prompt=call.prompt._replace(blocks=[block ^ salt for block in call.prompt.blocks]),
            answer=[block ^ salt for block in call.answer],
            seen=None,
        )
        for call in session.calls
    ]
    return Session(starts_s, calls, f"{session.name}-{salt:x}" if session.name else None)
