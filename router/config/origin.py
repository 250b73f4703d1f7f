"""The file that a configuration comes from, and what the command line says besides."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from router.config.available import unavailable
from router.config.decode import decode, text_in
from router.config.model import Config
from router.config.source import ConfigError, Mistake

Adjust = Callable[[Config], Config]


@dataclass(frozen=True, slots=True)
class Origin:
    """`adjust` puts what the command line says in place of what the file says."""

    path: Path
    adjust: Adjust = lambda config: config

    def read(self) -> str:
        """What the file says now. Raises ConfigError."""
        file = str(self.path)
        try:
            return text_in(self.path.read_bytes(), file)
        except OSError as error:
            raise ConfigError((Mistake(file, 0, "", f"cannot be read: {error.strerror}"),)) from None

    def decode(self, text: str) -> Config:
        """The configuration that `text` means here, if all of it can be served. Raises ConfigError."""
        config = decode(text, str(self.path), directory=self.path.resolve().parent)
        mistakes = unavailable(config)
        if mistakes:
            raise ConfigError(mistakes)
        return self.adjust(config)
