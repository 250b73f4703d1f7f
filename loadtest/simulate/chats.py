"""Multi-turn sessions over popular system prompts and documents, as a family of generators."""

from dataclasses import dataclass
from itertools import accumulate
from random import Random

from loadtest.simulate.transcript import Transcript
from loadtest.simulate.workload import Call, Session, Workload


@dataclass(frozen=True, slots=True)
class Chats:
    """The means that sessions are drawn with; tokens and seconds.

    A session picks a tool (system prompt) by Zipf's law, with `document_share` a document too, and goes on
    for a geometric number of turns; every turn adds a message, and after it the answer.
    """

    name: str
    block_tokens: int = 128
    tools: int = 150
    tool_exponent: float = 1.1
    tool_tokens: int = 3500
    document_share: float = 0.4
    documents: int = 1000
    document_exponent: float = 1.0
    document_tokens: int = 6000
    turns: float = 2.2
    message_tokens: int = 450
    answer_tokens: int = 135
    think_s: float = 15.0
    sessions_per_s: float = 4.0
    rotates_every_s: float | None = None

    def workload(self, calls: int, random: Random) -> Workload:
        """At least so many calls."""
        library = _Library(self, random)
        sessions: list[Session] = []
        now = 0.0
        while calls > 0:
            now += random.expovariate(self.sessions_per_s)
            session = self._session(now, len(sessions), library, random)
            sessions.append(session)
            calls -= len(session.calls)
        return Workload(self.name, sessions, self.block_tokens)

    def _session(self, now: float, number: int, library: "_Library", random: Random) -> Session:
        text = Transcript(self.block_tokens)
        for seed, tokens in library.heads(now, random):
            text.append(seed, tokens)
        calls: list[Call] = []
        while not calls or random.random() >= 1 / self.turns:
            text.append(random.getrandbits(62), _around(self.message_tokens, random))
            prompt, answer_tokens = text.prompt, _around(self.answer_tokens, random)
            text.append(random.getrandbits(62), answer_tokens)
            think_s = random.expovariate(1 / self.think_s) if calls else 0.0
            calls.append(Call(prompt, answer_tokens, think_s, text.prompt.blocks))
        return Session(now, calls, f"{self.name}-{number}")


class _Library:
    """The tools and documents there are, with fixed lengths, and how popular each is when."""

    def __init__(self, chats: Chats, random: Random) -> None:
        self._chats = chats
        self._tools = [_around(chats.tool_tokens, random) for _ in range(chats.tools)]
        self._documents = [_around(chats.document_tokens, random) for _ in range(chats.documents)]
        self._tool_weights = zipf_weights(chats.tools, chats.tool_exponent)
        self._document_weights = zipf_weights(chats.documents, chats.document_exponent)

    def heads(self, now: float, random: Random) -> list[tuple[int, int]]:
        """Seed and tokens of what a session begins with."""
        chosen = self._shifted(draw(self._tool_weights, random), len(self._tools), now)
        heads = [(chosen, self._tools[chosen])]
        if random.random() < self._chats.document_share:
            drawn = draw(self._document_weights, random)
            chosen = self._shifted(drawn, len(self._documents), now)
            heads.append((len(self._tools) + chosen, self._documents[chosen]))
        return heads

    def _shifted(self, rank: int, count: int, now: float) -> int:
        """Every rotation moves the ranks by a third of all, and a bit, so that none comes back soon."""
        every_s = self._chats.rotates_every_s
        return rank if every_s is None else (rank + int(now / every_s) * (count // 3 + 1)) % count


def zipf_weights(count: int, exponent: float) -> list[float]:
    """Cumulated: rank r of 0 to `count` - 1 has a probability in proportion to (r + 1) ^ -exponent."""
    return list(accumulate((rank + 1) ** -exponent for rank in range(count)))


def draw(weights: list[float], random: Random) -> int:
    """One rank by cumulated weights."""
    return random.choices(range(len(weights)), cum_weights=weights)[0]


def _around(mean: int, random: Random) -> int:
    """Gamma-distributed with a coefficient of variation of 0.7."""
    shape = 1 / 0.7**2
    return max(1, round(random.gammavariate(shape, mean / shape)))
