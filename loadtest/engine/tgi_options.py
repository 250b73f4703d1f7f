"""TGI's own knobs, given as `extra`, with the launcher's defaults."""

import msgspec

from loadtest.engine.core import EngineOptions
from loadtest.engine.tgi_stream import Framing
from loadtest.engine.tgi_validation import Limits
from loadtest.engine.tgi_wire import VERSION


class TgiOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One launcher's command line."""

    max_concurrent_requests: int = 128
    """Requests at a time, waiting ones included; more are refused as overload."""
    max_input_tokens: int = 0
    """Longest prompt, tokens; 0: one less than the context."""
    max_best_of: int = 2
    """Largest `best_of`."""
    max_stop_sequences: int = 4
    """Stop strings in one request."""
    max_top_n_tokens: int = 5
    """Alternatives for each token."""
    max_client_batch_size: int = 4
    """Prompts in one completions request."""
    payload_limit: int = 2_000_000
    """Largest body, bytes."""
    keep_alive_s: float = 15.0
    """Seconds of silence in a stream until a comment is sent."""
    version: str = VERSION
    """As `/info` says it."""
    model_sha: str | None = None
    """Commit of the model."""
    model_dtype: str | None = None
    """Data type of the weights; releases before 3.0 say it."""
    framing: Framing = "current"
    """`pre2.1`: no space after `data:`, and `eos_token` in chat."""
    auto_calls: bool = False
    """Whether `tool_choice: auto` makes the model call the first tool, unless it was just given an answer."""

    def limits(self, options: EngineOptions) -> Limits:
        """What validation enforces."""
        return Limits(
            max_total_tokens=options.max_model_len,
            max_input_tokens=self.max_input_tokens or options.max_model_len - 1,
            max_best_of=self.max_best_of,
            max_stop_sequences=self.max_stop_sequences,
            max_top_n_tokens=self.max_top_n_tokens,
        )
