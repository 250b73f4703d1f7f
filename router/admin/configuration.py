"""`/api/config`: the configuration in force, those before it, and the way back to one of them."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.admin.answers import json_answer
from router.api.errors import PathNotFound, RequestError
from router.config.history import Generation, NoSuchGeneration
from router.config.reload import Reloader
from router.config.source import ConfigError


class ConfigRefused(RequestError):
    """It cannot be put in force; the message says every mistake."""

    status = 409
    code = "configuration_refused"


class GenerationView(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration. `at`: since when it is, or was, in force, in seconds since 1970.

    `toml` is all of it, its secrets as references or masked.
    """

    generation: int
    at: float
    why: str
    in_force: bool
    toml: str


class ConfigDocument(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/config`. `mistakes` are why the file was refused; see `router.config.history.ConfigState`."""

    reload_failed: bool
    mistakes: list[str]
    rolled_back_to: int | None
    configuration: GenerationView


class HistoryView(msgspec.Struct, frozen=True):
    """`GET /api/config/history`: the newest first."""

    generations: list[GenerationView]


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /api/config/rollback`."""

    generation: int


class ConfigApi:
    """The handlers."""

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader

    def routes(self) -> list[Route]:
        return [
            Route("/api/config", self.show),
            Route("/api/config/history", self.history),
            Route("/api/config/rollback", self.rollback, methods=["POST"]),
        ]

    async def show(self, _request: Request) -> Response:
        """`ConfigDocument`."""
        return json_answer(self._document())

    async def history(self, _request: Request) -> Response:
        """`HistoryView`."""
        generations = self._reloader.history.generations
        return json_answer(HistoryView([self._view(each) for each in reversed(generations)]))

    async def rollback(self, request: Request) -> Response:
        """Put an earlier generation in force until the file changes. `ConfigDocument` of what is so then."""
        try:
            wanted = msgspec.json.decode(await request.body(), type=Wanted)
            await self._reloader.rollback(wanted.generation)
        except msgspec.MsgspecError as error:
            raise RequestError(f'write {{"generation": N}}: {error}') from None
        except NoSuchGeneration as error:
            raise PathNotFound(str(error), param="generation") from None
        except ConfigError as error:
            raise ConfigRefused(str(error), param="generation") from None
        return json_answer(self._document())

    def _document(self) -> ConfigDocument:
        state = self._reloader.state
        return ConfigDocument(
            reload_failed=state.reload_failed,
            mistakes=list(state.mistakes),
            rolled_back_to=state.rolled_back_to,
            configuration=self._view(self._reloader.history.in_force),
        )

    def _view(self, generation: Generation) -> GenerationView:
        return GenerationView(
            generation=generation.number,
            at=generation.at,
            why=generation.why,
            in_force=generation is self._reloader.history.in_force,
            toml=generation.shown,
        )
