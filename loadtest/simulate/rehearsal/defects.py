"""What is made wrong with a canary on purpose, to see when it is noticed: `KIND=SIZE`.

Whether a request is hit is drawn for each by itself, in the order of arrival.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Final, NamedTuple

from loadtest.simulate.setup import ReplicaSetup
from loadtest.simulate.workload import Call
from router.config.scalars import nearest

_SHARES: Final = frozenset({"errors", "broken", "truncated"})
_MOST: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Defects:
    """Shares are of the canary's requests, 0 to 1; the others are factors, 1 for as it should be."""

    errors: float = 0.0
    """Fail before their first token; stable answers them."""
    broken: float = 0.0
    """Break off in the middle of the answer, which the client sees."""
    truncated: float = 0.0
    """End in the middle of the answer, as if by the token limit."""
    slow: float = 1.0
    """Times of every step of its replicas: prefill and decode."""
    longer: float = 1.0
    """Tokens of its answers."""

    def slowed(self, replicas: Iterable[ReplicaSetup]) -> Sequence[ReplicaSetup]:
        return [replace(one, slowdown=one.slowdown * self.slow) for one in replicas]

    def strike(self, random: Random) -> "Struck":
        """What happens to the next request; at most one thing of each kind."""
        return Struck(
            random.random() < self.errors, random.random() < self.broken, random.random() < self.truncated
        )

    def answered(self, call: Call, struck: "Struck", most_tokens: int) -> Call:
        """The call with the answer that it gets; together they have at most `most_tokens`."""
        tokens = round(call.completion_tokens * self.longer)
        if struck.broken or struck.truncated:
            tokens //= 2
        tokens = max(1, min(tokens, most_tokens - call.prompt.tokens))
        if tokens == call.completion_tokens:
            return call
        blocks = int((call.prompt.tokens + tokens) // call.prompt.block_tokens)
        return call._replace(completion_tokens=tokens, answer=call.answer[:blocks])


class Struck(NamedTuple):
    """One request of the canary, and what is wrong with it."""

    errors: bool = False
    broken: bool = False
    truncated: bool = False


KINDS: Final[Sequence[str]] = tuple(field.name for field in fields(Defects))
NONE: Final = Defects()


def defects_of(texts: Iterable[str]) -> Defects:
    """Several of the command line's. Raises ValueError: it says what was expected."""
    found: dict[str, float] = {}
    for text in texts:
        kind, equals, size = text.partition("=")
        if not equals:
            raise ValueError(f"--defect {text}: KIND=SIZE is expected, such as errors=0.1")
        if kind not in KINDS:
            raise ValueError(f"--defect {text}: there is no {kind!r}; {nearest(kind, KINDS)}")
        if kind in found:
            raise ValueError(f"--defect {text}: {kind} is given twice; leave one out")
        found[kind] = _size(text, kind, size)
    return Defects(**found)


def _size(text: str, kind: str, size: str) -> float:
    try:
        value = float(size)
    except ValueError:
        raise ValueError(f"--defect {text}: {size!r} is no number") from None
    if kind in _SHARES and not 0 <= value <= 1:
        raise ValueError(f"--defect {text}: a share of the requests is expected, from 0 to 1")
    if kind not in _SHARES and not 0 < value <= _MOST:
        raise ValueError(f"--defect {text}: a factor is expected, above 0 and at most {_MOST:g}")
    return value


def in_words(defects: Defects) -> str:
    """`errors=0.1, slow=1.2`; `no defects` where nothing is made wrong."""
    given: Mapping[str, float] = {kind: getattr(defects, kind) for kind in KINDS}
    said = [f"{kind}={size:g}" for kind, size in given.items() if size != getattr(NONE, kind)]
    return ", ".join(said) or "no defects"
