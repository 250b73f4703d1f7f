"""`config.example.toml` is the model in prose: it names every option, with its default and its advice.

Lines that start with `#` and no space are options or sections that are not set; `uncommented` sets them all.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from random import Random
from typing import Any, get_origin, get_type_hints

import pytest

from policies.routing import POLICIES
from router.config import option
from router.config.available import unavailable
from router.config.decode import ConfigError, decode, load
from router.config.model import Config, PolicyConfig
from router.config.positions import key_lines
from router.config.show import to_plain
from router.config.source import KeyPath
from tests.support.configs import section_in, sections, single_options

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
ENVIRON = {"TURNOUT_ADMIN_TOKEN": "t0ken", "REPLICA_KEY": "k3y"}


def uncommented() -> str:
    return re.sub(r"^#(?=[a-z\[])", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def stated(cls: Any, table: Any, path: KeyPath = ()) -> Iterator[tuple[Any, str, KeyPath, Any]]:
    """Class, option, path and raw value of everything that a parsed file states for the section `cls`."""
    for name, raw in table.items():
        kind = get_type_hints(cls).get(name)
        yield cls, name, (*path, name), raw
        inner = section_in(kind)
        for key, entry in _entries(kind, raw) if inner not in (None, PolicyConfig) else ():
            yield from stated(inner, entry, (*path, name, *key))


def _entries(kind: Any, raw: Any) -> list[tuple[KeyPath, Any]]:
    origin = get_origin(option.without_none(kind))
    if origin is None:
        return [((), raw)]
    return [((key,), entry) for key, entry in (enumerate(raw) if origin is tuple else raw.items())]


def test_example_is_valid_and_can_be_served() -> None:
    """As it is, it decodes and asks for nothing that is not available."""
    assert unavailable(load(EXAMPLE, environ={})) == ()


def test_values_that_are_set_are_the_defaults() -> None:
    """The sections of the router itself equal those of an empty file."""
    config = load(EXAMPLE, environ={})
    assert config == Config(models=config.models)


def test_everything_decodes_when_uncommented(tmp_path: Path) -> None:
    """Every option and every section that is commented out is one that may be used, all of them together."""
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "tokenizers" / "llama-8b").mkdir(parents=True)
    (tmp_path / "tokenizers" / "llama-8b" / "tokenizer.json").touch()
    config = decode(uncommented(), "example", environ=ENVIRON, directory=tmp_path)
    assert config.redis is not None
    assert config.keys and config.limits and config.policies
    assert config.models["llama-8b"].canary is not None


def test_every_option_is_named_with_its_default_and_its_advice() -> None:
    """From the model to the example: each option stands somewhere at its default, right below its advice.

    One without a default shows its example; one that must be written shows any value.
    """
    text = uncommented()
    lines, places = text.splitlines(), key_lines(text)
    explained: dict[tuple[Any, str, str], list[Any]] = defaultdict(list)
    for cls, name, path, raw in stated(Config, tomllib.loads(text)):
        explained[cls, name, lines[places[path] - 2]].append(raw)
    for cls, name, declared in single_options():
        values = explained[cls, name, f"# {option.advice(declared)}"]
        assert values, f"{cls.__name__}.{name}"
        example, default = declared.metadata["example"], option.default(declared)
        if default is not MISSING:
            assert to_plain(default if example is None else example) in values, f"{cls.__name__}.{name}"


def test_every_section_is_there() -> None:
    """From the model to the example: each section stands somewhere, with an option in it."""
    present = {cls for cls, *_ in stated(Config, tomllib.loads(uncommented()))}
    assert present == {cls for cls, _ in sections()}


def test_every_policy_is_there() -> None:
    """Each kind is named in the prose, and each with options has a table with their defaults and advice."""
    text = uncommented()
    tables = {table["kind"]: table for table in tomllib.loads(text)["policies"].values()}
    for kind, policy in POLICIES.items():
        assert re.search(rf"^#   {kind} ", text, re.MULTILINE), kind
        for name, declared in option.options(policy.Options).items():
            assert tables[kind][name] == to_plain(option.default(declared))
            assert f"# {option.advice(declared)}\n{name} = " in text


def test_it_is_read_in_the_order_of_the_model() -> None:
    """Sections of the file come as they are declared."""
    order = [path[0] for path in key_lines(uncommented()) if len(path) == 1]
    assert order == list(option.options(Config))


MUTATIONS = 200


@pytest.mark.parametrize("seed", range(0, MUTATIONS, 20))
def test_any_damage_is_a_mistake_with_a_line(seed: int) -> None:
    """However the example is damaged, it decodes or says what is wrong at a line of the file; it never crashes."""
    refused = 0
    for number in range(seed, seed + 20):
        text = damaged(uncommented() if number % 2 else EXAMPLE.read_text(), Random(number))
        try:
            decode(text, "example", environ=ENVIRON)
        except ConfigError as error:
            refused += 1
            lines = max(1, len(text.splitlines()))
            assert all(1 <= mistake.line <= lines and mistake.text for mistake in error.mistakes), number
    assert refused


def damaged(text: str, random: Random) -> str:
    """`text` with one to four edits, each of a sort that hands and half-written files make."""
    for _ in range(random.randint(1, 4)):
        text = random.choice(EDITS)(text, random)
    return text


def _drop_span(text: str, random: Random) -> str:
    start = random.randrange(len(text) + 1)
    return text[:start] + text[start + random.randint(1, 40) :]


def _cut_off(text: str, random: Random) -> str:
    return text[: random.randrange(len(text) + 1)]


def _insert(text: str, random: Random) -> str:
    at = random.randrange(len(text) + 1)
    return (
        text[:at]
        + random.choice(["'", '"', '"""', "[", "]", "{", "}", "=", "\n", "\0", "#", ".", "é", "\\"])
        + text[at:]
    )


def _swap_lines(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return "".join(lines)


def _repeat_line(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    return "".join([*lines, random.choice(lines)])


def _replace_value(text: str, random: Random) -> str:
    """One value becomes another, often of another type."""
    values = list(re.finditer(r"= (.+)$", text, re.MULTILINE))
    if not values:
        return text
    start, end = random.choice(values).span(1)
    other = [
        "-1",
        "1e400",
        "nan",
        '""',
        '"x"',
        "[]",
        "{}",
        "[[1]]",
        "2020-01-01",
        "true",
        '"env:NONE"',
        '"file:/"',
    ]
    return text[:start] + random.choice([*other, random.choice(values)[1]]) + text[end:]


def _misspell(text: str, random: Random) -> str:
    names = list(re.finditer(r"[a-z_]{3,}", text))
    if not names:
        return text
    at = random.choice(names).start() + 1
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


EDITS = (_drop_span, _cut_off, _insert, _swap_lines, _repeat_line, _replace_value, _replace_value, _misspell)
