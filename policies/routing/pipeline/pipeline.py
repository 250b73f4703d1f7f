"""The policy: filters narrow the candidates, scorers weigh who is left, a picker takes one."""

from collections.abc import Sequence
from random import Random

from policies.routing.events import Event
from policies.routing.pipeline.filters import FILTERS
from policies.routing.pipeline.memory import Memory
from policies.routing.pipeline.options import PipelineOptions
from policies.routing.pipeline.pickers import PICKERS
from policies.routing.pipeline.scorers import SCORERS, Scorer
from policies.routing.pipeline.situation import Situation
from policies.routing.policy import R, ReplicaView, RequestFacts, Weighed


class Pipeline:
    """Scores are clamped to 0 to 1, multiplied by their weights and added, as llm-d's scheduler does."""

    Options = PipelineOptions
    learns = True

    def __init__(self, options: PipelineOptions, random: Random) -> None:
        self.wants_kv_events = options.prefix_from == "kv_events"
        self._random = random
        self._memory = Memory(options)
        self._filters = [FILTERS[name](options, self._memory) for name in options.filters]
        self._scorers: list[tuple[str, float, Scorer]] = [
            (name, weight, SCORERS[name](options, self._memory)) for name, weight in options.scorers.items()
        ]
        self._picker = PICKERS[options.picker]

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:  # noqa: ARG002
        self._memory.note_sizes(candidates)
        situation = self._situation(request, candidates)
        kept = self._kept(situation, self._random)
        scores = self._scores(situation.narrowed(kept))
        weights = [candidates[position].weight for position in kept]
        return candidates[kept[self._picker(scores, weights, self._random)]]

    def weigh(
        self,
        request: RequestFacts,
        candidates: Sequence[R],
        now: float,  # noqa: ARG002
    ) -> Sequence[Weighed]:
        """The cost is minus the score, with each scorer's share in it; who was filtered out costs 1."""
        situation = self._situation(request, candidates)
        kept = self._kept(situation, None)
        weighed = [Weighed(replica.id, 1.0, {"filtered": 1.0}) for replica in candidates]
        remaining = situation.narrowed(kept)
        terms = [(name, self._weighted(weight, score(remaining))) for name, weight, score in self._scorers]
        for place, position in enumerate(kept):
            shares = {name: shares[place] for name, shares in terms}
            weighed[position] = Weighed(candidates[position].id, -sum(shares.values()), shares)
        return weighed

    def observe(self, event: Event) -> None:
        self._memory.observe(event)

    def _situation(self, request: RequestFacts, candidates: Sequence[ReplicaView]) -> Situation:
        prompt = request.prompt
        if prompt is None:
            return Situation(request, candidates, None, [0] * len(candidates))
        prompt = self._memory.block_view(prompt)
        return Situation(request, candidates, prompt, self._memory.hits(prompt, candidates))

    def _kept(self, situation: Situation, random: Random | None) -> Sequence[int]:
        kept: Sequence[int] = range(len(situation.replicas))
        for keep in self._filters:
            kept = [kept[place] for place in keep(situation.narrowed(kept), random)]
        return kept

    def _scores(self, situation: Situation) -> list[float]:
        totals = [0.0] * len(situation.replicas)
        for _, weight, score in self._scorers:
            shares = self._weighted(weight, score(situation))
            totals = [total + share for total, share in zip(totals, shares, strict=True)]
        return totals

    @staticmethod
    def _weighted(weight: float, scores: Sequence[float]) -> list[float]:
        return [weight * min(1.0, max(0.0, score)) for score in scores]
