"""Conversations and prompts that begin alike stay together, by hashing alone: for routers that hear nobody.

What others send is unknown, so no mirror is true and no queue; but all routers hash alike, and so agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from policies.routing.events import Prompt
from policies.routing.plain import Plain
from policies.routing.policy import R, RequestFacts
from policies.routing.session_affinity import SessionAffinity

_DEPTH: Final = 4
"""Blocks of a prompt that count as its beginning: behind a system prompt that all share, as a rule."""


@dataclass(frozen=True, slots=True)
class _Named:
    session: str | None
    prompt: Prompt | None


class ByBeginning(Plain):
    """`session_affinity` by the session, else by the first blocks of the prompt, with its load bound."""

    def __init__(self, random: Random) -> None:
        self._by_session = SessionAffinity(SessionAffinity.Options(), random)

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        session, prompt = request.session, request.prompt
        if session is None and prompt is not None and prompt.blocks:
            session = f"{prompt.blocks[:_DEPTH][-1]:x}"
        return self._by_session.choose(_Named(session, prompt), candidates, now)
