"""Made-up traffic with stated properties, for what no published trace shows.

Every generator is called with the number of calls wanted (sessions are kept whole, so there may be a few
more) and a source of chance; `speed` 1 of what it gives is an easy day for eight 8B-H100 replicas.
"""

from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Final, Protocol

from loadtest.simulate.chats import Chats, draw, zipf_weights
from loadtest.simulate.transcript import Transcript
from loadtest.simulate.workload import Call, Session, Workload


class Generator(Protocol):
    def __call__(self, calls: int, random: Random) -> Workload: ...


class _Prompts:
    """Single calls of a fixed shape as a Poisson process."""

    def __init__(self, name: str, random: Random, *, per_s: float, block_tokens: int = 128) -> None:
        self.sessions: list[Session] = []
        self._name = name
        self._random = random
        self._per_s = per_s
        self._block_tokens = block_tokens
        self._now = 0.0

    def add(self, head: tuple[int, int], tail: tuple[int, int], completion: int, tenant: str | None) -> None:
        """`head` and `tail`: seed and tokens of what the prompt is made of."""
        self._now += self._random.expovariate(self._per_s)
        text = Transcript(self._block_tokens)
        text.append(*head)
        text.append(*tail)
        length = max(1, round(self._random.expovariate(1 / completion)))
        self.sessions.append(Session(self._now, (Call(text.prompt, length),), tenant))

    def done(self) -> Workload:
        return Workload(self._name, self.sessions, self._block_tokens)


def zipf(calls: int, random: Random, *, prefixes: int = 1000, exponent: float = 1.0) -> Workload:
    """One of 1,000 prefixes of 2,048 tokens by Zipf's law, and 512 tokens of its own behind it; 150 out."""
    made = _Prompts("zipf", random, per_s=20)
    weights = zipf_weights(prefixes, exponent)
    for number in range(calls):
        made.add((draw(weights, random), 2048), (prefixes + number, 512), 150, None)
    return made.done()


def giant_tenant(calls: int, random: Random, *, share: float = 0.7, others: int = 200) -> Workload:
    """One tenant sends 70 % of all calls, all with its one 4,096-token prefix; 200 others share the rest."""
    made = _Prompts("giant", random, per_s=20)
    for number in range(calls):
        giant = random.random() < share
        tenant = 0 if giant else 1 + random.randrange(others)
        made.add((tenant, 4096 if giant else 1024), (1 + others + number, 256), 150, f"tenant-{tenant}")
    return made.done()


def no_reuse(calls: int, random: Random) -> Workload:
    """No two prompts have a block in common: 2,048 tokens in, 150 out."""
    made = _Prompts("no_reuse", random, per_s=20)
    for number in range(calls):
        made.add((2 * number, 1024), (2 * number + 1, 1024), 150, None)
    return made.done()


def all_the_same(calls: int, random: Random) -> Workload:
    """One prompt of 2,048 tokens, asked again and again; 150 out."""
    made = _Prompts("same", random, per_s=20)
    for _ in range(calls):
        made.add((0, 1024), (1, 1024), 150, None)
    return made.done()


def tool(calls: int, random: Random) -> Workload:
    """Tool and agent traffic in the shape of Mooncake's tool-and-agent trace, which is hard to get.

    Zipf(1.1) over 150 tool prompts of about 3,500 tokens, 40 % with one of 1,000 documents by Zipf's law,
    2.2 turns on average; about 7,200 tokens in and 135 out.
    """
    return Chats("tool").workload(calls, random)


def drift(calls: int, random: Random) -> Workload:
    """`tool`, but every 5 minutes another part of the tools and documents is the popular one."""
    return Chats("drift", rotates_every_s=300).workload(calls, random)


def gmi_like(calls: int, random: Random) -> Workload:
    """Chats in the shape of LMBench's GMI trace: about 2,100 in, 150 out, 60 % known, 32-token blocks.

    The trace itself states no licence; this has its means, not its content. Rates fit eight A10G replicas.
    """
    shape = Chats(
        "gmi",
        block_tokens=32,
        tools=30,
        tool_tokens=450,
        document_share=0.1,
        documents=400,
        document_tokens=1500,
        turns=2.0,
        message_tokens=700,
        answer_tokens=147,
        sessions_per_s=1.5,
        think_s=10,
    )
    return shape.workload(calls, random)


GENERATORS: Final[Mapping[str, Generator]] = MappingProxyType(
    {
        "tool": tool,
        "drift": drift,
        "gmi": gmi_like,
        "zipf": zipf,
        "giant": giant_tenant,
        "no_reuse": no_reuse,
        "same": all_the_same,
    }
)
"""Name to generator."""
