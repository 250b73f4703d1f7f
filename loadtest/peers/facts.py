"""What a peer may be told of the fleet in its own settings."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

_NONE: Final[Mapping[str, float]] = MappingProxyType({})


class FleetFacts(NamedTuple):
    """Figures an operator would look up, for peers whose rule needs them."""

    kv_capacity_tokens: float
    """Tokens that the KV cache of one replica holds."""
    prefill_tokens_per_s: float
    """Prefill rate of an idle replica."""
    prefill_rates: Mapping[str, float] = _NONE
    """The same by replica, where replicas differ."""

    def prefill_rate(self, replica: str) -> float:
        """Tokens per second."""
        return self.prefill_rates.get(replica, self.prefill_tokens_per_s)
