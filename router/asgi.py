"""For ASGI servers other than the one that `turnout serve` brings along.

TURNOUT_CONFIG=turnout.toml uvicorn --factory router.asgi:app
TURNOUT_CONFIG=turnout.toml granian --interface asgi --factory router.asgi:app
"""

import os

from router.compose import AsgiApp
from router.config.available import unavailable
from router.config.decode import load
from router.config.source import ConfigError

DEFAULT_CONFIG = "turnout.toml"


def app() -> AsgiApp:
    """The public surface, of the configuration that `TURNOUT_CONFIG` names. Raises `ConfigError`."""
    config = load(os.environ.get("TURNOUT_CONFIG", DEFAULT_CONFIG))
    mistakes = unavailable(config)
    if mistakes:
        raise ConfigError(mistakes)
    return AsgiApp(config)
