"""How much a request will be, in tokens, before anybody has counted them."""

from policies.outcome import Outcome
from policies.routing.events import Prompt
from router.api.request import InferenceRequest

_BYTES_PER_TOKEN = 4
_ANSWER_TOKENS = 200.0
_NEWEST = 0.01
_MOST_ANSWERS = 128
"""As many as OpenAI's API gives (`n`). A client writes any number, and is believed before an engine refuses:
its estimate would saturate a replica, and stand for the size of what other routers have there."""


class RequestSizes:
    """For one version. An answer is taken to be as long as they were of late, if it may be.

    `prompt` is given where it is hashed anyway: to know its length better is worth no hashing.
    """

    __slots__ = ("_answer",)

    def __init__(self) -> None:
        self._answer = _ANSWER_TOKENS

    def in_flight(self, request: InferenceRequest, prompt: Prompt | None) -> int:
        """Tokens that it holds while it is served: of its answer half, on average."""
        tokens = len(request.body) // _BYTES_PER_TOKEN if prompt is None else prompt.tokens
        return tokens + self._answer_tokens(request) // 2

    def total(self, request: InferenceRequest, prompt: Prompt | None) -> int:
        """Tokens that it costs, prompt and answer."""
        tokens = len(request.body) // _BYTES_PER_TOKEN if prompt is None else prompt.tokens
        return tokens + self._answer_tokens(request)

    def learn(self, outcome: Outcome, answers: int = 1) -> None:
        """`answers`: how many were asked for; what an engine reports is of all of them together."""
        tokens = outcome.completion_tokens
        if tokens is not None:
            self._answer += (tokens / answers - self._answer) * _NEWEST

    def _answer_tokens(self, request: InferenceRequest) -> int:
        answer, most = int(self._answer), request.max_tokens
        each = answer if most is None or most > answer else most
        return each if request.n == 1 else min(request.n, _MOST_ANSWERS) * each
