"""What a policy may know about one request; the prompt is hashed when a policy first asks for it."""

from policies.routing.events import Prompt
from router.api.request import InferenceRequest
from router.fleet.prompts import PromptHasher


class Facts:
    """One request's, for all its attempts. `scope`: whose prompts may share a cache; see `PromptHasher`."""

    __slots__ = ("_hasher", "_is_hashed", "_prompt", "_request", "_scope", "session")

    def __init__(self, request: InferenceRequest, hasher: PromptHasher, scope: str = "") -> None:
        self.session = request.session
        self._request = request
        self._hasher = hasher
        self._scope = scope
        self._prompt: Prompt | None = None
        self._is_hashed = False

    @property
    def prompt(self) -> Prompt | None:
        if not self._is_hashed:
            self._is_hashed = True
            self._prompt = self._hasher.prompt_of(self._request, self._scope)
        return self._prompt
