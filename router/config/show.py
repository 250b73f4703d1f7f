"""A configuration as TOML again, for people and for `decode`, or as plain values. Secrets stay masked."""

from collections.abc import Mapping
from dataclasses import Field, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from policies.routing import POLICIES
from router.config import option
from router.config.available import DEFAULTS_TO_LEAVE_OUT
from router.config.model import Config, PolicyConfig
from router.config.option import without_none
from router.config.secret import Secret
from router.config.source import KeyPath
from router.config.toml_text import toml_key, toml_value


def to_toml(config: Config, *, every_option: bool = False) -> str:
    """The effective configuration. `every_option` adds the advice, and as comments what is not set."""
    writer = _Writer(every_option=every_option)
    writer.write_options((), Config, config)
    return "\n".join(writer.lines).strip() + "\n"


def to_plain(value: object) -> Any:
    """Dicts, lists and scalars; what is not set is None."""
    if isinstance(value, Secret):
        return value.masked()
    if isinstance(value, PolicyConfig):
        return {"kind": value.kind} | to_plain(_effective_options(value))
    if is_dataclass(value):
        return {name: to_plain(getattr(value, name)) for name in option.options(type(value))}
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    return value


def _effective_options(policy: PolicyConfig) -> Mapping[str, object]:
    """Those written and the defaults of the others."""
    options = POLICIES[policy.kind].Options(**policy.options)
    return {name: getattr(options, name) for name in option.options(type(options))}


_EXAMPLE_POLICY = PolicyConfig(name="mine", kind="power_of_two")


class _Writer:
    """Writes sections in the order of the model. One that is absent (None) is a comment, with examples."""

    def __init__(self, *, every_option: bool) -> None:
        self.lines: list[str] = []
        self._every_option = every_option
        self._explained: set[Any] = set()  # a kind of section is explained where it stands first

    def write_options(self, path: KeyPath, cls: Any, section: Any) -> None:
        """Single values first: in TOML, what follows a header belongs to that header."""
        explain = self._every_option and cls not in self._explained
        self._explained.add(cls)
        kinds = {name: without_none(kind) for name, kind in get_type_hints(cls).items()}
        declared = option.options(cls)
        nested = [
            name for name in declared if _is_nested(kinds[name]) and not self._is_inline(path, kinds[name])
        ]
        for name in declared:
            if name not in nested:
                self._write_option((*path, name), declared[name], section, explain=explain)
        for name in nested:
            self._write_nested((*path, name), kinds[name], declared[name], section, explain=explain)

    def _write_option(self, path: KeyPath, declared: Field[Any], section: Any, *, explain: bool) -> None:
        value = None if section is None else getattr(section, declared.name)
        unset = value is None or (path in DEFAULTS_TO_LEAVE_OUT and value == option.default(declared))
        if unset and not explain:
            return
        if explain:
            self.lines.append(f"# {option.advice(declared)}")
        shown = _to_show(declared) if value is None else value
        self.lines.append(f"{'#' if unset else ''}{toml_key(declared.name)} = {_value_text(shown)}")

    def _write_nested(
        self, path: KeyPath, kind: Any, declared: Field[Any], section: Any, *, explain: bool
    ) -> None:
        value = None if section is None else getattr(section, declared.name)
        if not value and not explain:
            return
        advice = option.advice(declared) if explain else ""
        for inner_path, inner in _sections(path, kind, value):
            self._write_header(inner_path, advice, absent=inner is None)
            self._write_section(inner_path, _section_class(kind), inner)
            advice = ""

    def _write_header(self, path: KeyPath, advice: str, *, absent: bool) -> None:
        name = ".".join(toml_key(part) for part in path if isinstance(part, str))
        header = f"[[{name}]]" if isinstance(path[-1], int) else f"[{name}]"
        self.lines += ["", f"# {advice}"] if advice else [""]
        self.lines.append(f"#{header}" if absent else header)

    def _write_section(self, path: KeyPath, cls: Any, section: Any) -> None:
        if cls is PolicyConfig:
            self._write_policy(section or _EXAMPLE_POLICY, absent=section is None)
        else:
            self.write_options(path, cls, section)

    def _write_policy(self, policy: PolicyConfig, *, absent: bool) -> None:
        mark = "#" if absent else ""
        self.lines.append(f"{mark}kind = {toml_value(policy.kind)}")
        declared = option.options(POLICIES[policy.kind].Options)
        for name, value in _effective_options(policy).items():
            if self._every_option:
                self.lines.append(f"# {option.advice(declared[name])}")
            self.lines.append(f"{mark}{toml_key(name)} = {_value_text(value)}")

    def _is_inline(self, path: KeyPath, kind: Any) -> bool:
        """Lists within a model are easier to read inline, as long as nothing has to be said about them."""
        return get_origin(kind) is tuple and bool(path) and not self._every_option


def _section_class(kind: Any) -> Any:
    """`S` of an option of type `S`, `tuple[S, ...]` or `Mapping[str, S]`."""
    origin = get_origin(kind)
    return kind if origin is None else get_args(kind)[0 if origin is tuple else 1]


def _is_nested(kind: Any) -> bool:
    return get_origin(kind) is not Literal and is_dataclass(_section_class(kind))


def _sections(path: KeyPath, kind: Any, value: Any) -> list[tuple[KeyPath, Any]]:
    """The sections of one option and where each stands; one absent example if there are none."""
    if get_origin(kind) is tuple:
        return [((*path, index), section) for index, section in enumerate(value or (None,))]
    if get_origin(kind) is not None:
        return [((*path, name), section) for name, section in (value or {"mine": None}).items()]
    return [(path, value)]


def _to_show(declared: Field[Any]) -> Any:
    """An example of an option that is not set."""
    example = declared.metadata.get("example")
    return option.default(declared) if example is None else example


def _value_text(value: Any) -> str:
    """As TOML; an array of tables gets a line for each, which states what is not at its default."""
    if not (isinstance(value, tuple) and value and is_dataclass(value[0])):
        return toml_value(to_plain(value))
    rows = (f"  {toml_value(to_plain(_stated(row)))},\n" for row in value)
    return f"[\n{''.join(rows)}]"


def _stated(section: Any) -> dict[str, object]:
    values = (
        (name, getattr(section, name), declared) for name, declared in option.options(type(section)).items()
    )
    return {name: value for name, value, declared in values if value != option.default(declared)}
