"""A copy of a request on its way: whom it is answered to, and what there is to compare of two answers."""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final

from policies.release.pairs import Answered
from router.api.errors import Fault, TurnoutError
from router.api.request import Endpoint, InferenceRequest
from router.flow.call import Call
from router.flow.exchange import Header

GENERATES: Final = frozenset(
    {
        Endpoint.CHAT,
        Endpoint.COMPLETIONS,
        Endpoint.RESPONSES,
        Endpoint.MESSAGES,
        Endpoint.GENERATE,
        Endpoint.GENERATE_STREAM,
        Endpoint.GENERATE_ROOT,
    }
)
"""Endpoints whose answers are compared: embeddings and scores have neither text nor time between tokens."""
_SEVERAL_TEXTS: Final = frozenset({"n", "best_of", "batch_prompt"})
_NO_HEADERS: Final[Mapping[str, str]] = {}


class NobodysExchange:
    """An `Exchange` without a client: what is written is counted, and gone."""

    def __init__(self, request: InferenceRequest) -> None:
        self.method = "POST"
        self.path = request.endpoint.path
        self.headers = _NO_HEADERS
        self.body = request.body
        self.received_at = monotonic()
        self.disconnected = False
        self.bytes_out = 0
        self.on_disconnect: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None

    def start(self, status: int, headers: Sequence[Header], length: int | None) -> None:
        """Nobody is told."""

    def write(self, data: bytes) -> None:
        self.bytes_out += len(data)

    def finish(self) -> None:
        """Nobody is told."""

    def abort(self) -> None:
        """Nobody is told."""


def is_greedy(request: InferenceRequest) -> bool:
    """Whether the same model is to say the same again: temperature 0, and one text."""
    if request.endpoint in (Endpoint.GENERATE, Endpoint.GENERATE_STREAM, Endpoint.GENERATE_ROOT):
        # TGI has no temperature 0: what it means by its parameters, the completion says.
        return request.fallback is not None and is_greedy(request.fallback)
    temperature = request.members.get("temperature")
    if temperature is None or request.n != 1 or not _SEVERAL_TEXTS.isdisjoint(request.needs):
        return False
    try:
        return float(bytes(temperature)) == 0
    except ValueError:
        return False


def is_comparable(call: Call, error: TurnoutError | None) -> bool:
    """Whether a replica has answered this request, with an answer or with what is wrong with it.

    What failed, what its client left and what a limit cut off says nothing of the version.
    """
    if not call.attempts:
        return False
    if call.limited is not None and any(word == "stopped" for _, word in call.limited.said):
        return False
    if error is not None:
        return error.fault is Fault.CLIENT
    return call.answered


def answered(call: Call, error: TurnoutError | None) -> Answered:
    """What a comparable call was answered with."""
    if error is not None:
        return Answered(status=error.status)
    request, usage, took_s = call.request, call.usage, call.attempts[-1].wait_s
    assert request is not None
    tokens = call.delivered[1] if usage is None else usage.completion_tokens
    timed = bool(request.stream and tokens and tokens > 1 and call.gap_sum_s)
    return Answered(
        status=call.status,
        finish_reason=call.finish_reason,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        output_tokens=tokens or None,
        time_to_first_token_s=took_s if request.stream else None,
        inter_token_s=call.gap_sum_s / (tokens - 1) if timed else None,
        answer_s=None if request.stream else took_s,
    )
