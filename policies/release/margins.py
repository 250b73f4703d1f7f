"""How much worse a canary may be: what is tolerated at all, and what has to be ruled out at each step.

To rule harm out costs many times the requests that it takes to notice it. So a step that few requests meet
asks for little, and the steps that many meet ask for what was configured: the wait is spent where it pays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_WIDTHS: Final[Sequence[tuple[float, float]]] = ((1.0, 5.0), (5.0, 3.0), (25.0, 2.0))
"""Up to this per cent of the traffic: so many points of errors, and as many times the excess of a ratio."""
_LENGTH: Final = 1.25
FINISH: Final = 5.0
"""Cut answers and clients that leave are frequent anyway: their margin is so many times that of errors."""


@dataclass(frozen=True, slots=True)
class Margins:
    """`error`: added share of bad requests, 0 to 1. The others: canary's median to stable's, 1 or more."""

    error: float = 0.01
    ttft_ratio: float = 1.1
    inter_token_ratio: float = 1.1
    length_ratio: float = _LENGTH
    """In both directions."""

    def at(self, percent: float) -> "Margins":
        """What is to be ruled out before a step of `percent` is left."""
        width = next((width for until, width in _WIDTHS if percent <= until), None)
        if width is None:
            return self
        return Margins(
            max(self.error, width / 100),
            1 + (self.ttft_ratio - 1) * width,
            1 + (self.inter_token_ratio - 1) * width,
            1 + (self.length_ratio - 1) * width,
        )
