"""What a policy may know about one request; the prompt is hashed when a policy first asks for it."""

from policies.routing.events import Prompt
from router.api.answer_text import answer_text
from router.api.request import InferenceRequest
from router.fleet.prompts import Hashed, PromptHasher


class Facts:
    """One request's, for all its attempts. `scope`: whose prompts may share a cache; see `PromptHasher`."""

    __slots__ = ("_hashed", "_hasher", "_is_hashed", "_request", "_scope", "session")

    def __init__(self, request: InferenceRequest, hasher: PromptHasher, scope: str = "") -> None:
        self.session = request.session
        self._request = request
        self._hasher = hasher
        self._scope = scope
        self._hashed: Hashed | None = None
        self._is_hashed = False

    @property
    def prompt(self) -> Prompt | None:
        if not self._is_hashed:
            self._is_hashed = True
            self._hashed = self._hasher.read(self._request, self._scope)
        return None if self._hashed is None else self._hashed.prompt

    def answered(self, body: bytes) -> Prompt | None:
        """What the next turn begins with after this whole answer; None if that cannot be known."""
        if self._hashed is None or self._hashed.end is None:
            return None
        text = answer_text(self._request, body)
        return None if text is None else self._hasher.answered(self._hashed, text)
