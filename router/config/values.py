"""From parsed TOML to typed values: one generic reader for every section, which collects every mistake.

A value that cannot be used is replaced by an empty one, so that reading goes on and one mistake
hides no other.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, is_dataclass
from datetime import datetime
from typing import Any, Literal, get_args, get_origin, get_type_hints

from policies.routing import POLICIES
from router.config import option
from router.config.model import PolicyConfig
from router.config.option import Check, Complaint, Place, without_none
from router.config.places import is_reference, secret_text
from router.config.scalars import choice, expect, moment, nearest, scalar
from router.config.secret import Secret
from router.config.source import KeyPath
from router.config.toml_text import toml_value


class Reader:
    """Reads values of one file. `found` is what is wrong: where, and what would be right."""

    def __init__(self, place: Place) -> None:
        self.found: list[tuple[KeyPath, str]] = []
        self._place = place

    def _complain(self, path: KeyPath, text: str) -> None:
        self.found.append((path, text))

    def read_section(self, path: KeyPath, cls: type[Any], table: Mapping[str, Any]) -> Any:
        """An instance of the section `cls`, whatever `table` holds; None if its own rules refuse it."""
        declared = option.options(cls)
        found_before = len(self.found)
        self._refuse_unknown(path, table, tuple(declared))
        kinds = get_type_hints(cls)
        given = {name: self._read_option(path, kinds[name], field, table) for name, field in declared.items()}
        try:
            return cls(**given)
        except ValueError as error:
            if len(self.found) == found_before:  # else it may be about a value that stands in for a bad one
                self._complain(*_refusal(path, declared, str(error)))
            return None

    def _refuse_unknown(self, path: KeyPath, table: Iterable[str], known: Sequence[str]) -> None:
        for name in table:
            if name not in known:
                self._complain((*path, name), f"unknown option; {nearest(name, known)}")

    def _read_option(self, path: KeyPath, kind: Any, field: Field[Any], table: Mapping[str, Any]) -> Any:
        path = (*path, field.name)
        if field.name in table:
            return self._read_given(path, kind, field, table[field.name])
        value = option.default(field)
        if value is MISSING:
            self._complain(path, _missing(field))
            return _empty(kind)
        return value

    def _read_given(self, path: KeyPath, kind: Any, field: Field[Any], raw: Any) -> Any:
        try:
            value = self.read_value(path, kind, raw, example=_example(field))
            if convert := field.metadata.get("convert"):
                value = convert(value, self._place)
        except Complaint as complaint:
            self._complain(path, str(complaint))
            return _empty(kind)
        self._check_entries(path, field, value)
        return value if self._passes(path, option.checks(field), value) else _empty(kind)

    def _check_entries(self, path: KeyPath, field: Field[Any], value: Any) -> None:
        checks = option.entry_checks(field)
        if not checks:
            return
        for key, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            if all((*path, key) != found for found, _ in self.found):
                self._passes((*path, key), checks, entry)

    def _passes(self, path: KeyPath, checks: Sequence[Check], value: Any) -> bool:
        tested = value.reveal() if isinstance(value, Secret) else value
        complaint = next((complaint for check in checks if (complaint := check(tested))), None)
        if complaint is not None:
            self._complain(path, complaint)
        return complaint is None

    def read_value(self, path: KeyPath, kind: Any, raw: Any, example: str = "") -> Any:
        """A value of type `kind`; raises Complaint when it is of another."""
        kind = without_none(kind)
        origin = get_origin(kind)
        if origin is Literal:
            return choice(raw, get_args(kind), example)
        if origin is tuple:
            return self._read_array(path, get_args(kind)[0], expect(raw, list, "an array", example))
        if origin is not None or is_dataclass(kind):
            return self._read_table(path, kind, expect(raw, dict, "a table", example))
        if issubclass(kind, Secret):
            return self._read_secret(kind, raw)
        return moment(raw, example) if kind is datetime else scalar(kind, raw, example)

    def _read_array(self, path: KeyPath, kind: Any, raw: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self._read_entry((*path, index), kind, entry) for index, entry in enumerate(raw))

    def _read_table(self, path: KeyPath, kind: Any, raw: Mapping[str, Any]) -> Any:
        if kind is PolicyConfig:
            return self._read_policy(path, raw)
        if get_origin(kind) is None:
            return self.read_section(path, kind, raw)
        return self._read_names(path, get_args(kind), raw)

    def _read_names(self, path: KeyPath, kinds: tuple[Any, ...], raw: Mapping[str, Any]) -> dict[str, Any]:
        key_kind, kind = kinds
        if get_origin(key_kind) is Literal:
            self._refuse_unknown(path, raw, get_args(key_kind))
        return {key: self._read_entry((*path, key), kind, value) for key, value in raw.items()}

    def _read_entry(self, path: KeyPath, kind: Any, raw: Any) -> Any:
        """One entry of an array or table; one that cannot be used leaves an empty one in its place."""
        try:
            return self.read_value(path, kind, raw)
        except Complaint as complaint:
            self._complain(path, str(complaint))
            return _empty(kind)

    def _read_secret(self, kind: type[Secret], raw: Any) -> Secret:
        text = expect(raw, str, "a string, 'env:NAME' or 'file:PATH'", "")
        return kind(secret_text(text, self._place), text if is_reference(text) else None)

    def _read_policy(self, path: KeyPath, raw: Mapping[str, Any]) -> PolicyConfig:
        """The one table whose shape depends on a word in it: `kind` says whose options the rest are."""
        name = str(path[-1])
        written = {key: value for key, value in raw.items() if key != "kind"}
        if "kind" not in raw:
            raise Complaint(f'has no kind: write kind = "…"; known: {", ".join(sorted(POLICIES))}')
        try:
            kind = choice(raw["kind"], tuple(POLICIES), "")
        except Complaint as complaint:
            self._complain((*path, "kind"), str(complaint))
            return PolicyConfig(name=name, kind="", options=written)
        options = self.read_section(path, POLICIES[kind].Options, written)
        return PolicyConfig(name=name, kind=kind, options=_values(options))


def _values(options: Any) -> dict[str, Any]:
    """Every option of a policy, the defaults too: two tables that mean the same are equal."""
    return {} if options is None else {name: getattr(options, name) for name in option.options(type(options))}


def _refusal(path: KeyPath, declared: Container[str], text: str) -> tuple[KeyPath, str]:
    """Where a section's own rule is broken: at the option that its message begins with, if it does."""
    word, _, rest = text.partition(" ")
    return ((*path, word), rest) if word in declared else (path, text)


def _empty(kind: Any) -> Any:
    """What stands in for a value that cannot be used, while the rest is read; no rule complains about it."""
    kind = without_none(kind)
    origin = get_origin(kind)
    if origin is Literal:
        return ""
    if kind is PolicyConfig:
        return PolicyConfig(name="", kind="")
    if is_dataclass(kind):
        return _empty_section(kind)
    if isinstance(kind, type) and issubclass(kind, Secret):
        return kind("")
    if kind is datetime:
        return None
    return () if origin is tuple else {} if origin is not None else kind()


def _empty_section(cls: Any) -> Any:
    kinds = get_type_hints(cls)
    required = (name for name, field in option.options(cls).items() if option.default(field) is MISSING)
    return cls(**{name: _empty(kinds[name]) for name in required})


def _missing(field: Field[Any]) -> str:
    example = field.metadata.get("example")
    if example is None:
        return f"is missing. {option.advice(field)}"
    return f"is missing; write {field.name} = {toml_value(example)}"


def _example(field: Field[Any]) -> str:
    """` such as 8080`, from the default or the example; nothing for what has neither."""
    value = field.metadata.get("example")
    if value is None:
        value = option.default(field)
    apt = isinstance(value, str | int | float | datetime) and not isinstance(value, bool)
    return f" such as {toml_value(value)}" if apt else ""
