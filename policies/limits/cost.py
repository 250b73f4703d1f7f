"""What a request costs in tokens: expected before it, to reserve that much, and used after it, to settle.

An estimate is never the charge where the engine says what was used; and no estimate keeps a request out for
good: what is reserved fits the bucket unless the prompt alone cannot.
"""

from collections import OrderedDict
from typing import Final, Literal, NamedTuple

from policies.limits.ratio import Ratio, ratio
from policies.limits.recent import Recent
from policies.limits.usage import (
    NOTHING,
    Delivered,
    Size,
    Used,
    clamped,
    is_plausible,
    without_false_cache,
)
from policies.outcome import Ending

Reserve = Literal["expected", "strict", "post"]

NEVER: Final = 0
"""What can be reserved where not even the prompt fits."""

_TOKENS_PER_BYTE: Final = ratio(2, 7)
_TOKENS_PER_PIECE: Final = ratio(1, 1)
_OUTPUT: Final = 256
"""Tokens of an answer, before any is known."""
_ENOUGH: Final = 8
"""From so many answers on they are believed."""
_WINDOW: Final = 128
_LEARNS_ALL: Final = 1024
_LEARNS_ONE_IN: Final = 4
"""After so many answers of a model some tell as much as all, for a fourth of the time."""
_UNBOUNDED: Final = 1 << 40
"""More than any bucket holds."""


class Expected(NamedTuple):
    """What to reserve. `least_tokens`: a prompt that has fewer would be a surprise."""

    prompt_tokens: int
    output_tokens: int
    least_tokens: int

    def within(self, capacity: int) -> int:
        """Tokens to reserve in a bucket that holds `capacity`, at least 1; `NEVER` if the prompt cannot fit.

        Less than expected where that is above the capacity: then the request waits for a full bucket and
        may leave a debt, but is not refused for ever.
        """
        if self.least_tokens > capacity:
            return NEVER
        return min(self.prompt_tokens + self.output_tokens, capacity)


class _Model:
    """What all tenants' requests to one model have in common."""

    __slots__ = ("answers", "body", "outputs", "pieces", "prompt")

    def __init__(self) -> None:
        self.answers = 0
        self.prompt = Ratio(_TOKENS_PER_BYTE)
        self.pieces = Ratio(_TOKENS_PER_PIECE)
        self.body = Ratio(_TOKENS_PER_BYTE)
        self.outputs = Recent(_WINDOW)


class CostModel:
    """Learns from every answer. Models are those that the configuration names.

    Outputs are remembered for `most` pairs of a tenant and a model, less than 1 KB each; beyond that the one
    that was silent longest is forgotten, and falls back on what all tenants use of its model.
    """

    def __init__(self, most: int = 16_384) -> None:
        self._most = most
        self._models: dict[str, _Model] = {}
        self._outputs: OrderedDict[tuple[str, str], Recent] = OrderedDict()

    def __len__(self) -> int:
        return len(self._outputs)

    def expect(self, tenant: str, model: str, size: Size, reserve: Reserve) -> Expected:
        """What to reserve for this request.

        What runs no model costs one token, so that an exhausted budget refuses that too.
        """
        if size.work == "none":
            return Expected(1, 0, 1)
        known = self._models.get(model) or self._of(model)
        if size.exact_tokens:
            prompt = likely = least = size.exact_tokens
        else:
            likely, prompt = known.prompt.of(size.prompt_bytes)
            # Some texts have a quarter of the usual tokens; to call one impossible would be for good.
            least = likely // 4 or 1
        if size.work == "encode" or reserve == "post":
            return Expected(prompt, 0, least)
        if reserve == "strict":
            most = _UNBOUNDED if size.most_output is None else size.most_output
            return Expected(prompt, most * size.answers, least)
        recent = self._outputs.get((tenant, model))
        if recent is None or recent.count < _ENOUGH:
            recent = known.outputs
        return Expected(prompt, _output(size, recent, prompt, likely), least)

    def settle(self, tenant: str, model: str, size: Size, reserved_tokens: int, delivered: Delivered) -> Used:
        """What the request used, and learn from it. Call it once, when the request has ended.

        What was reported counts when it can be true. Where nothing was: the prompt, and the output by what
        was delivered. `reserved_tokens`: the most that any limit had reserved.
        """
        reported = delivered.reported
        if reported is None and delivered.free:
            return NOTHING
        if size.work == "none":
            return Used(1, 0)
        if reported is not None and is_plausible(reported, size, delivered.pieces):
            self._learn(tenant, model, size, delivered, reported)
            return without_false_cache(reported)
        estimated = self._estimate(model, size, delivered)
        return estimated if reported is None else clamped(reported, estimated, 2 * reserved_tokens)

    def _estimate(self, model: str, size: Size, delivered: Delivered) -> Used:
        known = self._of(model)
        prompt_tokens = size.exact_tokens or known.prompt.of(size.prompt_bytes)[0]
        if size.work == "encode":
            return Used(prompt_tokens, 0, source="estimated")
        output_tokens = known.pieces.of(delivered.pieces)[0] if delivered.pieces else 0
        if delivered.body_bytes:
            output_tokens += known.body.of(delivered.body_bytes)[0]
        return Used(prompt_tokens, output_tokens, source="estimated")

    def _learn(self, tenant: str, model: str, size: Size, delivered: Delivered, reported: Used) -> None:
        known = self._models.get(model) or self._of(model)
        known.answers += 1
        if known.answers > _LEARNS_ALL and known.answers % _LEARNS_ONE_IN:
            return
        known.prompt.learn(reported.prompt_tokens, size.prompt_bytes)
        if size.work != "generate":
            return
        known.pieces.learn(reported.output_tokens, delivered.pieces)
        known.body.learn(reported.output_tokens, delivered.body_bytes)
        if delivered.ending is Ending.COMPLETED:
            each = -(-reported.output_tokens // size.answers)
            known.outputs.add(each)
            self._outputs_of(tenant, model).add(each)

    def _of(self, model: str) -> _Model:
        known = self._models.get(model)
        if known is None:
            known = self._models[model] = _Model()
        return known

    def _outputs_of(self, tenant: str, model: str) -> Recent:
        key = (tenant, model)
        recent = self._outputs.get(key)
        if recent is not None:
            self._outputs.move_to_end(key)
            return recent
        if len(self._outputs) >= self._most:
            self._outputs.popitem(last=False)
        recent = self._outputs[key] = Recent(_WINDOW)
        return recent


def _output(size: Size, recent: Recent, prompt: int, likely: int) -> int:
    """What nine in ten answers do with, as long as that is no more than a fifth above the usual request.

    Outputs spread widely: without the second bound a tenant would hold several times what it uses.
    """
    answers, most = size.answers, size.most_output
    if recent.count < _ENOUGH:
        ample = answers * _OUTPUT
    else:
        usual, ample = answers * recent.middle, answers * recent.high
        bound = (likely + usual) * 6 // 5 - prompt
        if ample > bound:
            ample = max(usual, bound)
    return ample if most is None or ample < answers * most else answers * most
