"""For ASGI servers other than the one that `turnout serve` brings along.

TURNOUT_CONFIG=turnout.toml uvicorn --factory router.asgi:app
TURNOUT_CONFIG=turnout.toml granian --interface asgi --factory router.asgi:app
"""

import os

from router.compose import Router
from router.config.available import unavailable
from router.config.decode import load
from router.config.model import Config
from router.config.source import ConfigError
from router.serving.asgi import Receive, Scope, Send

DEFAULT_CONFIG = "turnout.toml"


class AsgiApp:
    """The public surface for any ASGI server: its router starts and ends with the lifespan."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._router: Router | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._router is not None:
            await self._router.public_app(scope, receive, send)
        else:
            raise RuntimeError("this app needs a server that speaks the ASGI lifespan protocol")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            router = Router(self._config)
            await router.start()
        except OSError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._router = router
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            # Also where the server cancels this instead of saying that it is over.
            await router.close()
        await send({"type": "lifespan.shutdown.complete"})


def app() -> AsgiApp:
    """The public surface, of the configuration that `TURNOUT_CONFIG` names. Raises `ConfigError`."""
    config = load(os.environ.get("TURNOUT_CONFIG", DEFAULT_CONFIG))
    mistakes = unavailable(config)
    if mistakes:
        raise ConfigError(mistakes)
    return AsgiApp(config)
