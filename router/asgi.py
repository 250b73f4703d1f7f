"""For ASGI servers other than the one that `turnout serve` brings along.

TURNOUT_CONFIG=turnout.toml uvicorn --factory router.asgi:app
TURNOUT_CONFIG=turnout.toml granian --interface asgi --factory router.asgi:app
"""

import os
from pathlib import Path

from router.compose import Router
from router.config.model import Config
from router.config.origin import Origin
from router.config.reload import first_of
from router.serving.asgi import Receive, Scope, Send

DEFAULT_CONFIG = "turnout.toml"


class AsgiApp:
    """The public surface for any ASGI server: its router starts and ends with the lifespan."""

    def __init__(self, config: Config, origin: Origin | None = None, text: str = "") -> None:
        """With an `origin`, which said `text`, the configuration is reloaded when the file changes."""
        self._config = config
        self._origin = origin
        self._text = text
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
            router = Router(self._config, origin=self._origin, history=first_of(self._config, self._text))
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
    origin = Origin(Path(os.environ.get("TURNOUT_CONFIG", DEFAULT_CONFIG)))
    text = origin.read()
    return AsgiApp(origin.decode(text), origin, text)
