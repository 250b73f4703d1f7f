"""How much a request will be, in tokens, before anybody has counted them."""

from typing import NamedTuple

from policies.outcome import Outcome
from policies.routing.cost_model import Average
from policies.routing.events import Prompt
from router.api.request import InferenceRequest

_BYTES_PER_TOKEN = 4
_ANSWER_TOKENS = 200
_ANSWER_WINDOW = 200


class Size(NamedTuple):
    """Tokens. Of `answer` there is half, on average, while it is being made."""

    prompt: int
    answer: int

    @property
    def total(self) -> int:
        return self.prompt + self.answer

    @property
    def in_flight(self) -> int:
        return self.prompt + self.answer // 2


class RequestSizes:
    """For one version. An answer is taken to be as long as they were of late, if it may be."""

    __slots__ = ("_answer",)

    def __init__(self) -> None:
        self._answer = Average(_ANSWER_TOKENS, _ANSWER_WINDOW)

    def size(self, request: InferenceRequest, prompt: Prompt | None) -> Size:
        """`prompt` where it is hashed anyway; its length is worth no hashing."""
        tokens = len(request.body) // _BYTES_PER_TOKEN if prompt is None else prompt.tokens
        answer = int(self._answer.value)
        most = request.max_tokens
        return Size(tokens, request.n * (answer if most is None or most > answer else most))

    def learn(self, outcome: Outcome) -> None:
        if outcome.completion_tokens is not None:
            self._answer.add(outcome.completion_tokens)
