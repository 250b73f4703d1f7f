"""What a configuration may ask for that this release does not do: named, never silently ignored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from router.config.model import Config
from router.config.source import KeyPath, Mistake

DEFAULTS_TO_LEAVE_OUT: frozenset[KeyPath] = frozenset({("retries", "continue_streams")})
"""Their default is not available yet, and to write it is to ask for it: so they are shown as comments."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Something not available yet: where a configuration asks for it, and what to tell its author."""

    asked_for: Callable[[Config], Iterable[KeyPath]]
    answer: str


def unavailable(config: Config) -> tuple[Mistake, ...]:
    """Everything in `config` that cannot be served yet, in the order of the file."""
    asked = ((path, feature.answer) for feature in _FEATURES for path in feature.asked_for(config))
    mistakes = (config.source.mistake(path, answer) for path, answer in asked)
    return tuple(sorted(mistakes, key=lambda mistake: mistake.line))


def _continue_streams(config: Config) -> Iterable[KeyPath]:
    path = ("retries", "continue_streams")
    return [path] if config.retries.continue_streams and config.source.wrote(path) else []


def _of_versions(option: str) -> Callable[[Config], Iterable[KeyPath]]:
    def find(config: Config) -> Iterable[KeyPath]:
        for name, model in config.models.items():
            for version, declared in model.versions.items():
                if getattr(declared, option) is not None:
                    yield ("models", name, "versions", version, option)

    return find


def _kv_events_over_zmq(config: Config) -> Iterable[KeyPath]:
    if find_spec("zmq") is not None:
        return
    for name, model in config.models.items():
        for version, declared in model.versions.items():
            for index, replica in enumerate(declared.replicas):
                if replica.kv_events is not None and replica.kv_events.endpoint is not None:
                    yield ("models", name, "versions", version, "replicas", index, "kv_events", "endpoint")


def _tokenizers(config: Config) -> Iterable[KeyPath]:
    return _of_versions("tokenizer")(config) if find_spec("tokenizers") is None else []


_FEATURES = (
    Feature(_continue_streams, "going on with a broken stream is not available yet; write false"),
    Feature(_of_versions("discover"), "discovery is not available yet; list the replicas"),
    Feature(_kv_events_over_zmq, "needs pyzmq, which is not installed: pip install 'turnout[kv-events]'"),
    Feature(_tokenizers, "needs tokenizers, which is not installed: pip install 'turnout[tokenizer]'"),
)
"""One row a feature; a row goes when its feature comes, but for those that an installation may lack."""
