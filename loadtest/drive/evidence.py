"""What a difference between the two runs comes from: from choices, from the engines, or from chance alone."""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, NamedTuple

from loadtest.drive.run import Driven
from loadtest.simulate.contender import Contender, Result, run
from loadtest.simulate.results import Served, Slo
from loadtest.simulate.workload import Call, Workload
from policies.routing.events import Event, Prompt
from policies.routing.policy import R, RequestFacts, Weighed

CHANCE_S: Final = 0.02
CHANCE_RUNS: Final = 20

_Key = tuple[int, tuple[int, ...]]


class Spread(NamedTuple):
    """Least and most over several runs; shares and seconds."""

    hit: tuple[float, float]
    ttft_p50_s: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All runs of one scenario."""

    simulated: Result
    driven: Driven
    replayed: Result
    """Simulated, but every request goes where it went in the driven run."""
    by_chance: Spread

    @property
    def equally_cached(self) -> int:
        """Driven requests that found as many tokens as the same request replayed."""
        driven, replayed = (
            Counter((_key(_seen(one.call)), one.cached_tokens) for one in result.served)
            for result in (self.driven.result, self.replayed)
        )
        return (driven & replayed).total()


class Choices:
    """A policy without an opinion: it repeats what another run chose, for equal prompts in their order."""

    learns = False

    def __init__(self, served: Sequence[Served]) -> None:
        self._replicas: defaultdict[_Key, deque[str]] = defaultdict(deque)
        for one in sorted(served, key=lambda one: one.at):
            self._replicas[_key(_seen(one.call))].append(one.replica)

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        """The first candidate for what the other run did not serve."""
        known = self._replicas[_key(request.prompt)] if request.prompt is not None else None
        wanted = known.popleft() if known else None
        return next((one for one in candidates if one.id == wanted), candidates[0])

    def weigh(
        self,
        request: RequestFacts,  # noqa: ARG002
        candidates: Sequence[R],  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> Sequence[Weighed]:
        return ()

    def observe(self, event: Event) -> None:
        """Nothing is learned."""


def replayed(contender: Contender, workload: Workload, slo: Slo, served: Sequence[Served]) -> Result:
    """Simulate the scenario with the choices of a driven run."""
    return run(replace(contender, policy=lambda _random: Choices(served)), workload, slo)


def by_chance(contender: Contender, workload: Workload, slo: Slo, runs: int = CHANCE_RUNS) -> Spread:
    """Simulate it again and again, sessions up to `CHANCE_S` later each time, and with other dice."""
    summaries = []
    for seed in range(runs):
        random = Random(seed)
        later = [
            one._replace(starts_s=one.starts_s + random.uniform(0, CHANCE_S)) for one in workload.sessions
        ]
        other = replace(contender, setup=replace(contender.setup, seed=contender.setup.seed + 1 + seed))
        summaries.append(run(other, replace(workload, sessions=later), slo).summary)
    hits, ttft_s = [one.hit for one in summaries], [one.ttft_p50_s for one in summaries]
    return Spread((min(hits), max(hits)), (min(ttft_s), max(ttft_s)))


def _seen(call: Call) -> Prompt:
    return call.seen or call.prompt


def _key(prompt: Prompt) -> _Key:
    return prompt.tokens, tuple(prompt.blocks)
