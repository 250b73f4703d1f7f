"""Reload: another configuration takes the place of the one in force as a whole, or not at all.

The file is looked at a few times a second, and at once when somebody asks for it. Whatever is wrong with what
it says, the router serves on as before and says so: in its log, its metrics and its status.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import time
from typing import Final

from router.config.changes import restart_mistakes
from router.config.differences import Difference, differences
from router.config.file_watch import FileWatch
from router.config.history import ConfigState, Generation, History
from router.config.model import Config
from router.config.origin import Origin
from router.config.show import to_toml
from router.config.source import ConfigError, Mistake

log = logging.getLogger("turnout.config")

LOOK_S: Final = 0.3
"""Between two looks at the file: a change is in force after two or three of them."""

Apply = Callable[[Config], Awaitable[None]]
"""Serves by a configuration from now on; whatever it raises, it has changed nothing."""


class Reloader:
    """Keeps a router by its file. Used on one event loop; without an `origin` there is no file.

    `state` is what others show of it. `publish` is told of every generation that comes into force.
    """

    def __init__(
        self,
        config: Config,
        apply: Apply,
        state: ConfigState,
        origin: Origin | None = None,
        *,
        history: History | None = None,
        publish: Callable[[History], None] | None = None,
    ) -> None:
        """`history` is that of a process that was here before this one."""
        self.state = state
        self.history = history or first_of(config, "")
        self._config = config
        self._apply = apply
        self._origin = origin
        self._publish = publish
        self._watch = None if origin is None else FileWatch(origin.path)
        first = self.history.in_force
        self._said = first.text if first.passed_over is None else first.passed_over
        """What the file said when it was last considered."""
        self._asked = asyncio.Event()
        self._changing = asyncio.Lock()
        state.generation, state.rolled_back_to = first.number, first.rolled_back_to

    def hasten(self) -> None:
        """Read the file now, with everything it refers to, changed or not: an operator asks for it."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while self._watch is not None and self._origin is not None:
            asked = await self._pause()
            # In a thread: a file system may take its time.
            if asked or await asyncio.to_thread(self._watch.look):
                await self._consider(self._origin, asked=asked)

    async def _pause(self) -> bool:
        """True if it was cut short."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def rollback(self, number: int) -> Generation:
        """Put an earlier generation in force, until the file changes or is asked for.

        Raises `NoSuchGeneration`, and `ConfigError` if it could not be used today, or not without a restart.
        """
        async with self._changing:
            text = self.history.numbered(number).text
            config = self._config if self._origin is None else await self._decode(self._origin, text)
            await self._put_in_force(config, text, f"rollback to {number}", rolled_back_to=number)
            return self.history.in_force

    async def _consider(self, origin: Origin, *, asked: bool) -> None:
        """What the file says now is put in force, or refused aloud."""
        async with self._changing:
            try:
                text = await asyncio.to_thread(origin.read)
                if text == self._said and not asked and not self.state.reload_failed:
                    return
                self._said = text
                config = await self._decode(origin, text)
                if config != self._config or self.state.rolled_back_to is not None:
                    why = "an operator asked for it" if asked else "the file changed"
                    await self._put_in_force(config, text, why)
                else:
                    self._confirm(text)
                self._well()
            except ConfigError as error:
                self._refuse(error.mistakes)
            except Exception as error:
                log.exception("the configuration met a defect of the router")
                self._refuse((Mistake(str(origin.path), 0, "", f"cannot be used: {error!r}"),))

    async def _decode(self, origin: Origin, text: str) -> Config:
        """Raises `ConfigError` also for what only a restart can change."""
        config = await asyncio.to_thread(origin.decode, text)
        mistakes = restart_mistakes(self._config, config)
        if mistakes:
            raise ConfigError(mistakes)
        return config

    async def _put_in_force(
        self, config: Config, text: str, why: str, *, rolled_back_to: int | None = None
    ) -> None:
        """Raises `ConfigError` if it cannot be applied."""
        changes, shown = await asyncio.to_thread(_described, self._config, config)
        try:
            await self._apply(config)
        except Exception as error:
            log.exception("a configuration cannot be applied")
            mistake = Mistake(config.source.file, 0, "", f"cannot be applied: {error}")
            raise ConfigError((mistake,)) from error
        self._config = config
        generation = Generation(
            number=self.history.next_number,
            at=time(),
            why=why,
            text=text,
            shown=shown,
            rolled_back_to=rolled_back_to,
            passed_over=None if rolled_back_to is None else self._said,
        )
        self.history.add(generation)
        self.state.generation, self.state.rolled_back_to = generation.number, rolled_back_to
        log.info("configuration %d is in force: %s", generation.number, why)
        for change in changes:
            log.info("%s", change.text)
        self._tell()

    def _confirm(self, text: str) -> None:
        """The file says in other words, or says again, what is in force."""
        log.info("configuration %d is what the file says", self.history.in_force.number)
        if text != self.history.in_force.text:
            self.history.reword(text)
            self._tell()

    def _tell(self) -> None:
        if self._publish is not None:
            self._publish(self.history)

    def _well(self) -> None:
        self.state.reload_failed, self.state.mistakes = False, ()

    def _refuse(self, mistakes: Sequence[Mistake]) -> None:
        self.state.reload_failed = True
        self.state.mistakes = tuple(map(str, mistakes))
        for mistake in mistakes:
            log.error("%s", mistake)
        log.error("the file is refused, and configuration %d stays", self.history.in_force.number)


def _described(before: Config, after: Config) -> tuple[list[Difference], str]:
    """What changes, and the whole of it. Takes its time where there are hundreds of replicas."""
    return differences(before, after), to_toml(after)


def first_of(config: Config, text: str) -> History:
    """Of a router that starts."""
    return History([Generation(number=1, at=time(), why="start", text=text, shown=to_toml(config))])
