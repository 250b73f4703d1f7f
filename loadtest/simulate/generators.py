"""Made traffic, each kind for one question; all of it from a seed.

`tool` and `drift` have the shape of Mooncake's tool-and-agent trace, `chat` that of small cloud traffic on
small replicas; the others are limits: no reuse, nothing but reuse, one tenant that is most of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from types import MappingProxyType
from typing import Final

from loadtest.simulate.asks import Ask, Workload, chained, open_loop, poisson
from policies.routing.events import Prompt

_BLOCK: Final = 128
_SMALL_BLOCK: Final = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of it: requests, and how many a second."""

    requests: int = 6_000
    per_s: float = 10.0
    seed: int = 1


class _Zipf:
    """Ranks 0 to `size` - 1, the first the most popular."""

    def __init__(self, size: int, exponent: float) -> None:
        self._ranks = range(size)
        self._cumulative = list(accumulate(1 / (rank + 1) ** exponent for rank in self._ranks))

    def draw(self, random: Random) -> int:
        return random.choices(self._ranks, cum_weights=self._cumulative)[0]


def tool(shape: Shape, *, rotation_s: float = 0.0) -> Workload:
    """150 tool and system prompts of some 3,500 tokens, 40 % with a document, 2.2 turns, 135 tokens out.

    `rotation_s`: how often other prompts become the popular ones.
    """
    random = Random(shape.seed)
    prompts, documents = _Zipf(150, 1.1), _Zipf(1_000, 1.0)
    sizes = [round(random.uniform(1_500, 5_500) / _BLOCK) for _ in range(150)]
    asks: list[Ask] = []
    for number, at in enumerate(poisson(round(shape.requests / 2.2), shape.per_s / 2.2, random)):
        turn = int(at / rotation_s) * 37 if rotation_s else 0
        chosen = (prompts.draw(random) + turn) % 150
        names: list[object] = [(1, chosen, index) for index in range(sizes[chosen])]
        if random.random() < 0.4:
            document = documents.draw(random)
            names += [(2, document, index) for index in range(28)]
        asks += _turns(number, at, names, random)
    return open_loop("drift" if rotation_s else "tool", asks[: shape.requests], _BLOCK)


def drift(shape: Shape) -> Workload:
    """`tool`, with other prompts popular every minute."""
    return tool(shape, rotation_s=60.0)


def chat(shape: Shape) -> Workload:
    """Small prompts on a shared system prompt, many short conversations: 2,100 tokens in, 147 out."""
    random = Random(shape.seed)
    systems = _Zipf(12, 1.2)
    asks: list[Ask] = []
    for number, begin in enumerate(poisson(shape.requests // 3, shape.per_s / 3, random)):
        at, system = begin, systems.draw(random)
        names: list[object] = [(3, system, index) for index in range(12 + 3 * system)]
        for turn in range(random.choice((1, 2, 3, 3, 6))):
            names += [(4, number, turn, index) for index in range(max(1, round(random.expovariate(1 / 14))))]
            asks.append(_ask(at, names, _output(random, 147), f"{number}", _SMALL_BLOCK))
            at += random.uniform(4, 40)
    return open_loop("chat", sorted(asks, key=lambda ask: ask.at)[: shape.requests], _SMALL_BLOCK)


def zipf(shape: Shape) -> Workload:
    """2,000 prompts of 2,000 tokens, asked again and again by popularity."""
    random = Random(shape.seed)
    ranks = _Zipf(2_000, 1.0)
    asks = []
    for at in poisson(shape.requests, shape.per_s, random):
        rank = ranks.draw(random)
        asks.append(_ask(at, [(5, rank, index) for index in range(16)], _output(random, 150), None))
    return open_loop("zipf", asks, _BLOCK)


def giant_tenant(shape: Shape) -> Workload:
    """Half of all requests are one tenant's, on one system prompt; the rest are a hundred others'."""
    random = Random(shape.seed)
    asks = []
    for number, at in enumerate(poisson(shape.requests, shape.per_s, random)):
        tenant = 0 if random.random() < 0.5 else random.randrange(1, 100)
        names: list[object] = [(6, tenant, index) for index in range(20)]
        names += [(7, number, index) for index in range(8)]
        asks.append(_ask(at, names, _output(random, 150), f"tenant {tenant}"))
    return open_loop("giant_tenant", asks, _BLOCK)


def no_reuse(shape: Shape) -> Workload:
    """Every prompt is new: 250 to 8,000 tokens."""
    random = Random(shape.seed)
    asks = []
    for number, at in enumerate(poisson(shape.requests, shape.per_s, random)):
        names: list[object] = [(8, number, index) for index in range(round(2 ** random.uniform(1, 6)))]
        asks.append(_ask(at, names, _output(random, 200), None))
    return open_loop("no_reuse", asks, _BLOCK)


def all_same(shape: Shape) -> Workload:
    """One prompt for everyone."""
    random = Random(shape.seed)
    names: list[object] = [(9, index) for index in range(24)]
    asks = [
        _ask(at, names, _output(random, 200), None) for at in poisson(shape.requests, shape.per_s, random)
    ]
    return open_loop("all_same", asks, _BLOCK)


def _turns(number: int, at: float, names: list[object], random: Random) -> list[Ask]:
    asks = []
    for turn in range(random.choice((1, 1, 2, 2, 5))):
        names = [*names, *((10, number, turn, index) for index in range(random.randrange(2, 20)))]
        asks.append(_ask(at, names, _output(random, 135), f"{number}"))
        at += random.uniform(5, 30)
    return asks


def _ask(at: float, names: list[object], output_tokens: int, session: str | None, block: int = _BLOCK) -> Ask:
    blocks = chained(names)
    return Ask(at, Prompt(blocks, len(blocks) * block + block // 2, block), output_tokens, session)


def _output(random: Random, mean: float) -> int:
    return max(1, min(2_000, round(random.expovariate(1 / mean))))


GENERATORS: Final[Mapping[str, Callable[[Shape], Workload]]] = MappingProxyType(
    {
        "tool": tool,
        "drift": drift,
        "chat": chat,
        "zipf": zipf,
        "giant_tenant": giant_tenant,
        "no_reuse": no_reuse,
        "all_same": all_same,
    }
)
"""By name, as `turnout simulate --generator` takes them."""
