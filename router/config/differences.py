"""What changes in behaviour from one configuration to another, in words for those who run the router."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from router.config.access import KeyConfig, LimitConfig
from router.config.changes import restart_paths
from router.config.model import Config, ModelConfig, PolicyConfig, ReplicaConfig, VersionConfig
from router.config.source import KeyPath
from router.config.values_changed import changed_values, in_words


@dataclass(frozen=True, slots=True)
class Difference:
    """One sentence, where in the file it comes from, and whether only a restart can bring it about."""

    path: KeyPath
    text: str
    restart: bool = False


def differences(before: Config, after: Config) -> list[Difference]:
    """Everything, in the order of the file; empty if both mean the same."""
    return [
        *_sections(before, after),
        *_models(before, after),
        *_policies(before, after),
        *_keys(before, after),
        *_limits(before, after),
    ]


_TOLD_APART = ("models", "policies", "keys", "limits")


def _sections(before: Config, after: Config) -> Iterator[Difference]:
    """The options of the router itself."""
    reasons = {path: reason for path, _, reason in restart_paths(before, after)}
    for path, old, new in changed_values(before, after):
        if path[0] in _TOLD_APART:
            continue
        about = reasons.get(path) or next((r for at, r in reasons.items() if at[: len(path)] == path), None)
        words = f"{_name(path)}: {in_words(old)} -> {in_words(new)}"
        yield Difference(path, words if about is None else f"{words} ({about})", restart=about is not None)


def _name(path: KeyPath) -> str:
    return ".".join(map(str, path))


# ---- models ----


T = TypeVar("T")


def _apart(before: Mapping[str, T], after: Mapping[str, T]) -> tuple[list[str], list[str], list[str]]:
    """Names that are gone, that are new, and that were and are there."""
    gone = [name for name in before if name not in after]
    return gone, [name for name in after if name not in before], [name for name in after if name in before]


def _models(before: Config, after: Config) -> Iterator[Difference]:
    gone, new, both = _apart(before.models, after.models)
    for name in gone:
        names = ", ".join((name, *before.models[name].aliases))
        yield Difference(("models", name), f"model {name} removed: clients that name {names} get 404")
    for name in new:
        model = after.models[name]
        versions = ", ".join(f"{each} ({_replicas(version)})" for each, version in model.versions.items())
        text = f"model {name} added, stable {model.stable}, versions {versions}"
        yield Difference(("models", name), text)
    for name in both:
        yield from _model(("models", name), before, after, name)
    yield from _aliases(before, after)


def _replicas(version: VersionConfig) -> str:
    if version.discover is not None:
        return "replicas that are discovered"
    count = len(version.replicas)
    return "1 replica" if count == 1 else f"{count} replicas"


def _model(path: KeyPath, before: Config, after: Config, name: str) -> Iterator[Difference]:
    old, new = before.models[name], after.models[name]
    gone, added, both = _apart(old.versions, new.versions)
    for version in added:
        text = f"{name}: version {version} added with {_replicas(new.versions[version])}"
        yield Difference((*path, "versions", version), text)
    for version in gone:
        gets = f"{name}@{version} gets 404 version_retired, what is open there finishes"
        text = f"{name}: version {version} removed: {gets}"
        yield Difference((*path, "versions", version), text)
    for version in both:
        where = (*path, "versions", version)
        yield from _version(where, f"{name} {version}", old.versions[version], new.versions[version])
    if old.stable != new.stable:
        names = ", ".join((name, *(alias for alias in new.aliases if alias in old.aliases)))
        text = f"{name}: stable is {new.stable} instead of {old.stable}: clients that name {names} now get it"
        yield Difference((*path, "stable"), text)
    yield from _model_options(path, name, old, new)


_OF_MODELS = frozenset({"versions", "stable", "aliases"})


def _model_options(path: KeyPath, name: str, old: ModelConfig, new: ModelConfig) -> Iterator[Difference]:
    for inner, was, now in changed_values(old, new):
        if inner[0] not in _OF_MODELS:
            text = f"{name}: {_name(inner)}: {in_words(was)} -> {in_words(now)}"
            yield Difference((*path, *inner), text)


def _aliases(before: Config, after: Config) -> Iterator[Difference]:
    old, new = _alias_owners(before), _alias_owners(after)
    for alias, owner in new.items():
        if old.get(alias) != owner:
            model = after.models[owner]
            text = f"clients that name {alias} now get {owner} {model.stable}"
            yield Difference(("models", owner, "aliases"), text)
    for alias, owner in old.items():
        if alias not in new and owner in after.models:
            text = f"{alias} is no name any more: clients that name it get 404"
            yield Difference(("models", owner, "aliases"), text)


def _alias_owners(config: Config) -> dict[str, str]:
    return {alias: name for name, model in config.models.items() for alias in model.aliases}


def _version(path: KeyPath, who: str, old: VersionConfig, new: VersionConfig) -> Iterator[Difference]:
    where = (*path, "replicas")
    olds, news = _by_id(old.replicas), _by_id(new.replicas)
    gone, added, both = _apart(olds, news)
    yield from (Difference(where, f"{who}: replica {each} ({news[each].engine}) added") for each in added)
    yield from (
        Difference(where, f"{who}: replica {each} removed: what is open there finishes") for each in gone
    )
    for each in both:
        for inner, was, now in changed_values(olds[each], news[each]):
            text = f"{who}: replica {each}: {_name(inner)}: {in_words(was)} -> {in_words(now)}"
            yield Difference(where, text)
    for inner, was, now in changed_values(old, new):
        if inner[0] != "replicas":
            yield Difference((*path, *inner), f"{who}: {_name(inner)}: {in_words(was)} -> {in_words(now)}")


def _by_id(replicas: Iterable[ReplicaConfig]) -> dict[str, ReplicaConfig]:
    return {replica.replica_id: replica for replica in replicas}


def _policies(before: Config, after: Config) -> Iterator[Difference]:
    """Of policies that some model uses; others change nothing."""
    for name, policy in after.policies.items():
        users = [each for each, model in after.models.items() if model.policy == name]
        old = before.policies.get(name)
        if users and old is not None and old != policy:
            yield from _policy(old, policy, ", ".join(users))


def _policy(old: PolicyConfig, new: PolicyConfig, users: str) -> Iterator[Difference]:
    path: KeyPath = ("policies", new.name)
    if old.kind != new.kind:
        text = (
            f"policy {new.name} is {new.kind} instead of {old.kind}, for {users}: what it has learned is gone"
        )
        yield Difference((*path, "kind"), text)
        return
    for inner, was, now in changed_values(old.options, new.options):
        text = f"policy {new.name}: {_name(inner)}: {in_words(was)} -> {in_words(now)}, for {users}"
        yield Difference((*path, *inner), text)


# ---- keys and limits ----


def _keys(before: Config, after: Config) -> Iterator[Difference]:
    olds, news = ({key.id: key for key in config.keys} for config in (before, after))
    gone, added, both = _apart(olds, news)
    if bool(olds) != bool(news):
        text = "every request needs a key now" if news else "everybody may call, without a key"
        yield Difference(("keys",), text)
    yield from (Difference(("keys",), f"key {each} added, for {news[each].tenant}") for each in added)
    yield from (Difference(("keys",), f"key {each} removed: who has it gets 401") for each in gone)
    for each in both:
        yield from (Difference(("keys",), text) for text in _key(olds[each], news[each]))


def _key(old: KeyConfig, new: KeyConfig) -> Iterator[str]:
    for path, was, now in changed_values(old, new):
        if path == ("digest",):
            yield f"key {new.id} is another one: who has the old one gets 401"
        else:
            yield f"key {new.id}: {_name(path)}: {_or_all(path, was)} -> {_or_all(path, now)}"


def _or_all(path: KeyPath, value: Any) -> str:
    return "all" if path == ("models",) and value is None else in_words(value)


_UNITS = {
    "requests_per_minute": " requests a minute",
    "tokens_per_minute": " tokens a minute",
    "concurrency": " requests at a time",
}


def _limits(before: Config, after: Config) -> Iterator[Difference]:
    olds, news = ({limit.name: limit for limit in config.limits} for config in (before, after))
    gone, added, both = _apart(olds, news)
    yield from (Difference(("limits",), f"limit {each} added: {_amounts(news[each])}") for each in added)
    yield from (Difference(("limits",), f"limit {each} removed") for each in gone)
    for each in both:
        for path, was, now in changed_values(olds[each], news[each]):
            unit = _UNITS.get(str(path[0]))
            about = "" if unit else f"{_name(path)}: "
            text = f"limit {each}: {about}{in_words(was)} -> {in_words(now)}{unit or ''}"
            yield Difference(("limits",), text)


def _amounts(limit: LimitConfig) -> str:
    given = ((getattr(limit, name), unit) for name, unit in _UNITS.items())
    amounts = ", ".join(f"{value:g}{unit}" for value, unit in given if value is not None)
    per = ", ".join(limit.per)
    return f"{amounts}, for each {per}" if per else f"{amounts}, for all together"
