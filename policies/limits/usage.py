"""How large a request is, what came of it, and what it used: the values that costs are made of."""

from fractions import Fraction
from typing import Final, Literal, NamedTuple

from policies.outcome import Ending

Work = Literal["generate", "encode", "none"]
"""`encode`: the model reads a prompt and writes nothing. `none`: no model runs, as to tokenize."""
Source = Literal["reported", "estimated", "clamped"]

_MOST_ADDED: Final = 1 << 17
"""Tokens that a prompt may have besides its bytes: templates, and images given by their addresses."""
_MOST_OUTPUT: Final = 1 << 20
"""Tokens that one answer may have where nobody says."""
_SLACK: Final = 64


class Size(NamedTuple):
    """What a request says of its own size.

    `prompt_bytes`: measured alike for all requests of a model, without the bytes of pictures and sound.
    `exact_tokens`: of the prompt, 0 where nobody has counted.
    `most_output`: tokens of one answer, the least that the request and the model allow; None where neither
    says. `answers`: how many the engine generates, over all prompts.
    """

    work: Work
    prompt_bytes: int
    exact_tokens: int = 0
    most_output: int | None = None
    answers: int = 1


class Used(NamedTuple):
    """Tokens. `cached_tokens` are those of the prompt that came from a cache."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    source: Source = "reported"


NOTHING: Final = Used(0, 0, 0, "estimated")


class Delivered(NamedTuple):
    """What came of a request: of the attempt whose answer the client got, else of the last one.

    `sent`: an engine was given the prompt. `reported`: what the engine said was used, at its word. `pieces`:
    frames of a stream that carried output and were received; `body_bytes`: of an answer that is no stream.
    """

    ending: Ending
    sent: bool
    reported: Used | None = None
    pieces: int = 0
    body_bytes: int = 0

    @property
    def free(self) -> bool:
        """Nothing to pay: it was never sent, or it failed and nothing came back."""
        if not self.sent:
            return True
        refunded = self.ending is not Ending.COMPLETED and self.ending is not Ending.CLIENT_LEFT
        return refunded and self.reported is None and not self.pieces and not self.body_bytes


class Price:
    """What a limit counts. `cached_weight`, 0 to 1, is what a cached prompt token counts for."""

    __slots__ = ("_denominator", "_numerator")

    def __init__(self, cached_weight: float = 1.0) -> None:
        # A third is meant by 0.333 no more than by the float next to it: a thousandth is precise enough.
        weight = Fraction(cached_weight).limit_denominator(1000)
        self._numerator, self._denominator = weight.as_integer_ratio()

    def tokens(self, used: Used) -> int:
        """Rounded up. In whole numbers, so that the same use always costs the same."""
        cached = -(-used.cached_tokens * self._numerator // self._denominator)
        return used.prompt_tokens - used.cached_tokens + cached + used.output_tokens


def is_plausible(reported: Used, size: Size, pieces: int) -> bool:
    """Whether an engine can have used this: a byte is at most a token, a piece at least about one."""
    most = _MOST_OUTPUT if size.most_output is None else size.most_output
    least_output = pieces // 2 - _SLACK
    return 0 < reported.prompt_tokens <= size.prompt_bytes + size.exact_tokens + _MOST_ADDED and max(
        least_output, 0
    ) <= reported.output_tokens <= size.answers * (2 * most + _SLACK)


def without_false_cache(reported: Used) -> Used:
    """A discount that cannot be true is none."""
    if 0 <= reported.cached_tokens <= reported.prompt_tokens:
        return reported
    return reported._replace(cached_tokens=0)


def clamped(reported: Used, delivered: Used, most: int) -> Used:
    """What of an absurd report can be charged: from what was delivered up to `most` tokens in all."""
    prompt_tokens = _between(reported.prompt_tokens, delivered.prompt_tokens, most)
    output_tokens = _between(reported.output_tokens, delivered.output_tokens, most - prompt_tokens)
    return Used(prompt_tokens, output_tokens, source="clamped")


def _between(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
