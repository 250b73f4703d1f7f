"""What of a configuration can change while the router serves: everything but what this table names."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from router.config.model import Config
from router.config.secret import Secret
from router.config.source import KeyPath, Mistake

_LISTENER: Final = "a listener cannot move while it serves"
_PROCESSES: Final = "processes are made at the start"
_LOG: Final = "logs are opened at the start"
_REDIS: Final = "who shares this Redis agreed on it at the start"
_RELEASES: Final = "releases are kept, and told of, in one place for as long as the router runs"

RESTART: Final[Mapping[tuple[str, str], str]] = {
    ("server", "host"): _LISTENER,
    ("server", "port"): _LISTENER,
    ("server", "workers"): _PROCESSES,
    ("server", "max_json_depth"): "requests are read by one rule for as long as the router runs",
    ("server", "access_log"): _LOG,
    ("server", "log_prefixes"): _LOG,
    ("server", "log_level"): _LOG,
    ("admin", "host"): _LISTENER,
    ("admin", "port"): _LISTENER,
    ("admin", "token"): "who may use the admin listener is fixed while it serves",
    ("redis", "url"): _REDIS,
    ("redis", "on_failure"): _REDIS,
    ("redis", "timeout_ms"): _REDIS,
    ("releases", "file"): _RELEASES,
    ("releases", "webhook"): _RELEASES,
}
"""Section and option, and why it needs a restart. All else is applied in place."""


def restart_mistakes(before: Config, after: Config) -> tuple[Mistake, ...]:
    """Why `after` cannot take the place of `before` while the router serves; empty if it can."""
    paths = [*restart_paths(before, after)]
    return tuple(
        after.source.mistake(path, f"{changed}; {reason}: restart") for path, changed, reason in paths
    )


def restart_paths(before: Config, after: Config) -> list[tuple[KeyPath, str, str]]:
    """Every such option: where, what changes in words, and why that needs a restart."""
    found: list[tuple[KeyPath, str, str]] = []
    for (section, option), reason in RESTART.items():
        old, new = _value(before, section, option), _value(after, section, option)
        if old != new:
            found.append(((section, option), f"{_shown(old)} -> {_shown(new)}", reason))
    return found + [found_ for rule in _RULES for found_ in rule(before, after)]


def _value(config: Config, section: str, option: str) -> Any:
    return getattr(getattr(config, section), option, None)


def _shown(value: object) -> str:
    return "absent" if value is None else value.masked() if isinstance(value, Secret) else str(value)


def _reservations_last(before: Config, after: Config) -> list[tuple[KeyPath, str, str]]:
    """How long Redis remembers a request is told to its scripts at the start."""
    old, new = before.timeouts.total_s, after.timeouts.total_s
    if before.redis is None or not before.limits or old == new:
        return []
    return [(("timeouts", "total_s"), f"{old:g} -> {new:g}", "Redis keeps reservations for as long")]


_Rule = Callable[[Config, Config], list[tuple[KeyPath, str, str]]]
_RULES: Final[tuple[_Rule, ...]] = (_reservations_last,)
"""What depends on more than one option."""
