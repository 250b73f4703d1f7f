"""What must hold between options. Each rule yields where it is broken, what is wrong and what would be right.

Rules also run when some values were unusable: an empty value stands for those, and no rule minds it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator

from policies.routing import POLICIES
from router.config import checks
from router.config.access import Subject, limit_mistakes, match_mistakes
from router.config.expect import expect_mistakes
from router.config.fleet import DiscoverConfig, ReplicaConfig, VersionConfig
from router.config.kv_events import kv_events_mistakes
from router.config.model import Config
from router.config.option import default, options
from router.config.scalars import nearest
from router.config.source import KeyPath, dotted

Broken = Iterator[tuple[KeyPath, str]]


def broken_rules(config: Config) -> Broken:
    """Everything that does not fit together in `config`."""
    for rule in _RULES:
        yield from rule(config)


# ---- listeners ----


def _two_listeners(config: Config) -> Broken:
    server, admin = config.server, config.admin
    same_host = server.host == admin.host or {server.host, admin.host} & {"0.0.0.0", "::"}
    if server.port == admin.port != 0 and same_host:
        yield (
            ("admin", "port"),
            f"{admin.port} is the port of [server]; the admin listener needs one of its own",
        )


def _admin_is_guarded(config: Config) -> Broken:
    if config.admin.token is None and not checks.is_loopback(config.admin.host):
        yield (
            ("admin", "host"),
            'without a token it must be loopback; write token = "env:TURNOUT_ADMIN_TOKEN"',
        )


# ---- models and their versions ----


def _something_is_served(config: Config) -> Broken:
    if not config.models:
        yield ("models",), "is missing: write at least one [models.NAME] table"


def _names_are_usable(config: Config) -> Broken:
    named: list[KeyPath] = [("policies", policy) for policy in config.policies]
    for model, declared in config.models.items():
        named.append(("models", model))
        named.extend(("models", model, "versions", version) for version in declared.versions)
    for path in named:
        if complaint := checks.name(str(path[-1])):
            yield path, complaint


def _versions_exist(config: Config) -> Broken:
    """Wherever a model names one of its versions, it has that version."""
    for name, model in config.models.items():
        for path, version in _named_versions(config, name):
            if version and model.versions and version not in model.versions:
                where: KeyPath = ("models", name, *path)
                yield where, f"there is no version {version!r}; {nearest(version, tuple(model.versions))}"


def _named_versions(config: Config, name: str) -> Iterator[tuple[KeyPath, str]]:
    model = config.models[name]
    yield ("stable",), model.stable
    if model.split is not None:
        yield from ((("split", "weights", version), version) for version in model.split.weights)
        yield from (
            (("split", "rules", at, "version"), rule.version) for at, rule in enumerate(model.split.rules)
        )
    if model.shadow is not None:
        yield ("shadow", "version"), model.shadow.version


def _names_are_unique(config: Config) -> Broken:
    """A name that clients send means one model."""
    taken = dict.fromkeys(config.models, "is a model's name already")
    for name, model in config.models.items():
        for index, alias in enumerate(model.aliases):
            if alias in taken:
                yield ("models", name, "aliases", index), f"{alias!r} {taken[alias]}; write another name"
            taken.setdefault(alias, f"is an alias of {name!r} already")


def _policies_exist(config: Config) -> Broken:
    known = (*config.policies, *POLICIES)
    for name, model in config.models.items():
        if model.policy and model.policy not in known:
            yield (
                ("models", name, "policy"),
                f"there is no policy {model.policy!r}; {nearest(model.policy, known)}",
            )


def _policy_names_are_clear(config: Config) -> Broken:
    for name, policy in config.policies.items():
        if name in POLICIES and policy.kind not in (name, ""):
            yield ("policies", name), f"is the name of a kind; give a tuned {policy.kind!r} a name of its own"


# ---- replicas ----


def _versions_are_served(config: Config) -> Broken:
    for path, version in _versions(config):
        if version.discover is None and not version.replicas:
            yield (
                (*path, "replicas"),
                'is missing; write replicas = [{ url = "http://10.0.0.1:8000", engine = "vllm" }]',
            )
        if version.discover is not None and version.replicas:
            yield (*path, "discover"), "replicas are listed too; write either replicas or discover"


def _replicas_are_unique(config: Config) -> Broken:
    for path, version in _versions(config):
        seen: dict[str, int] = {}
        for index, replica in enumerate(version.replicas):
            first = seen.setdefault(replica.url, index)
            if replica.url and first != index:
                yield (
                    (*path, "replicas", index, "url"),
                    f"{replica.url!r} is listed already, as replicas[{first}]",
                )


def _replicas_agree(config: Config) -> Broken:
    """The same URL is the same process wherever it stands; an id means one URL."""
    by_url: dict[str, tuple[KeyPath, ReplicaConfig]] = {}
    by_id: dict[str, tuple[KeyPath, ReplicaConfig]] = {}
    for path, replica in _replicas(config):
        if not replica.url or not replica.engine:
            continue
        twin_path, twin = by_url.setdefault(replica.url, (path, replica))
        if twin.engine != replica.engine:
            yield (
                (*path, "engine"),
                f"{replica.url} is {twin.engine!r} at {dotted(twin_path)}; write the same",
            )
        if twin.replica_id != replica.replica_id:
            yield (
                (*path, "id"),
                f"{replica.url} is called {twin.replica_id!r} at {dotted(twin_path)}; write the same",
            )
        twin_path, twin = by_id.setdefault(replica.replica_id, (path, replica))
        if twin.url != replica.url:
            yield (
                (*path, "id"),
                f"{replica.replica_id!r} is the id of {twin.url} at {dotted(twin_path)}; write another",
            )


def _replica_options_apply(config: Config) -> Broken:
    declared = options(ReplicaConfig)
    for path, replica in _replicas(config):
        if replica.engine in ("triton", ""):
            continue
        for name in ("model_name", "triton_layout", "output", "chat_template"):
            if getattr(replica, name) != default(declared[name]):
                yield (
                    (*path, name),
                    f"is for engine = 'triton', this replica is {replica.engine!r}; remove it",
                )


def _kv_events_are_complete(config: Config) -> Broken:
    for path, version in _versions(config):
        for index, replica in enumerate(version.replicas):
            if replica.kv_events is not None and replica.engine:
                where: KeyPath = (*path, "replicas", index, "kv_events")
                mistakes = kv_events_mistakes(replica.kv_events, replica.engine, version.tokenizer)
                yield from (((*where, *name), complaint) for name, complaint in mistakes)


def _expectations_can_be_met(config: Config) -> Broken:
    for path, version in _versions(config):
        if version.expect is not None:
            yield from (((*path, "expect", name), text) for name, text in expect_mistakes(version.expect))


_DISCOVERY = {"dns": ("host", ()), "kubernetes": ("selector", ("namespace",))}
"""Of each kind: the option it needs, and those it may have besides."""


def _discovery_is_complete(config: Config) -> Broken:
    for path, version in _versions(config):
        if version.discover is not None and version.discover.kind:
            yield from (((*path, "discover", name), text) for name, text in _discovery(version.discover))


def _discovery(discover: DiscoverConfig) -> Iterator[tuple[str, str]]:
    needed, optional = _DISCOVERY[discover.kind]
    if getattr(discover, needed) is None:
        yield needed, f"is missing: kind = {discover.kind!r} needs it"
    for name in ("host", "namespace", "selector"):
        if name not in (needed, *optional) and getattr(discover, name) is not None:
            yield name, f"is not for kind = {discover.kind!r}; remove it"


# ---- keys and limits ----


def _keys_are_unique(config: Config) -> Broken:
    yield from _unique("keys", "id", [key.id for key in config.keys])
    yield from _unique("keys", "digest", [key.digest for key in config.keys])
    yield from _unique("limits", "name", [limit.name for limit in config.limits])


def _unique(section: str, option: str, values: Collection[str]) -> Broken:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        first = seen.setdefault(value, index)
        if value and first != index:
            yield (section, index, option), f"is the same as in {section}[{first}]; each needs its own"


def _matches_exist(config: Config) -> Broken:
    for index, limit in enumerate(config.limits):
        name = limit.match.get("model", "")
        models = (config.models[name],) if name in config.models else config.models.values()
        known: dict[Subject, list[str]] = {
            "tenant": [key.tenant for key in config.keys],
            "api_key": [key.id for key in config.keys],
            "version": [version for model in models for version in model.versions],
        }
        yield from ((("limits", index, *path), text) for path, text in match_mistakes(limit, known))


def _models_exist(config: Config) -> Broken:
    """Wherever keys and limits name a model, there is one."""
    for path, name in _named_models(config):
        if name and config.models and name not in config.models:
            yield path, f"there is no model {name!r}; {nearest(name, tuple(config.models))}"


def _named_models(config: Config) -> Iterator[tuple[KeyPath, str]]:
    for index, key in enumerate(config.keys):
        yield from ((("keys", index, "models", at), name) for at, name in enumerate(key.models or ()))
    for index, limit in enumerate(config.limits):
        yield ("limits", index, "match", "model"), limit.match.get("model", "")


def _limits_are_possible(config: Config) -> Broken:
    for index, limit in enumerate(config.limits):
        yield from ((("limits", index, *name), text) for name, text in limit_mistakes(limit))


# ---- walking ----


def _versions(config: Config) -> Iterable[tuple[KeyPath, VersionConfig]]:
    for model, declared in config.models.items():
        yield from (
            (("models", model, "versions", name), version) for name, version in declared.versions.items()
        )


def _replicas(config: Config) -> Iterable[tuple[KeyPath, ReplicaConfig]]:
    for path, version in _versions(config):
        yield from (((*path, "replicas", index), replica) for index, replica in enumerate(version.replicas))


_RULES: tuple[Callable[[Config], Broken], ...] = (
    _two_listeners,
    _admin_is_guarded,
    _something_is_served,
    _names_are_usable,
    _versions_exist,
    _names_are_unique,
    _policies_exist,
    _policy_names_are_clear,
    _versions_are_served,
    _replicas_are_unique,
    _replicas_agree,
    _replica_options_apply,
    _kv_events_are_complete,
    _expectations_can_be_met,
    _discovery_is_complete,
    _keys_are_unique,
    _models_exist,
    _matches_exist,
    _limits_are_possible,
)
