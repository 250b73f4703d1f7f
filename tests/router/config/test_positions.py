"""The lines that users read in a complaint are the lines of the keys they wrote."""

import tomllib
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config.positions import key_lines
from router.config.source import KeyPath


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key path of a parsed document."""
    if path:
        yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield from paths_of(inner, (*path, key))


CASES = {
    "plain keys": (
        """\
        a = 1
        b = "x"

        c = true
        """,
        {("a",): 1, ("b",): 2, ("c",): 4},
    ),
    "tables and tables in them": (
        """\
        [server]
        port = 1
        [models.llama]
        stable = "v1"
        """,
        {
            ("server",): 1,
            ("server", "port"): 2,
            ("models",): 3,
            ("models", "llama"): 3,
            ("models", "llama", "stable"): 4,
        },
    ),
    "a table's own header wins over an earlier mention": (
        """\
        [a.b]
        x = 1
        [a]
        y = 2
        """,
        {("a",): 3, ("a", "b"): 1, ("a", "b", "x"): 2, ("a", "y"): 4},
    ),
    "array tables, with a table inside the last entry": (
        """\
        [[keys]]
        id = "a"
        [[keys]]
        id = "b"
        [keys.more]
        x = 1
        """,
        {
            ("keys",): 1,
            ("keys", 0): 1,
            ("keys", 0, "id"): 2,
            ("keys", 1): 3,
            ("keys", 1, "id"): 4,
            ("keys", 1, "more"): 5,
            ("keys", 1, "more", "x"): 6,
        },
    ),
    "array tables inside array tables": (
        """\
        [[a]]
        [[a.b]]
        x = 1
        [[a.b]]
        [[a]]
        [[a.b]]
        """,
        {
            ("a",): 1,
            ("a", 0): 1,
            ("a", 0, "b"): 2,
            ("a", 0, "b", 0): 2,
            ("a", 0, "b", 0, "x"): 3,
            ("a", 0, "b", 1): 4,
            ("a", 1): 5,
            ("a", 1, "b"): 6,
            ("a", 1, "b", 0): 6,
        },
    ),
    "dotted keys, spaced": (
        """\
        a . b.c = 1
        a.d = 2
        """,
        {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "d"): 2},
    ),
    "quoted keys, with dots, brackets and escapes in them": (
        """\
        ["a.b]#"]
        'c = "' = 1
        "d\\u0041\\"" = 2
        """,
        {("a.b]#",): 1, ("a.b]#", 'c = "'): 2, ("a.b]#", 'dA"'): 3},
    ),
    "a multi-line array of inline tables, with comments between": (
        """\
        replicas = [
          # the first { url = "no" }
          { url = "a", engine = "vllm" },

          { url = "b" }, # ] the second
        ]
        after = 1
        """,
        {
            ("replicas",): 1,
            ("replicas", 0): 3,
            ("replicas", 0, "url"): 3,
            ("replicas", 0, "engine"): 3,
            ("replicas", 1): 5,
            ("replicas", 1, "url"): 5,
            ("after",): 7,
        },
    ),
    "multi-line strings that look like TOML": (
        '''\
        a = """
        [table]
        b = 1 \\""" # not the end
        """
        c = """x"""""
        d = \'\'\'
        e = "
        \'\'\'\'\'
        f = 1
        ''',
        {("a",): 1, ("c",): 5, ("d",): 6, ("f",): 9},
    ),
    "strings with brackets, braces, commas and signs in an inline table": (
        """\
        a = { b = "},]#", c = '#[{', d = ["]", "}"] }
        e = 1
        """,
        {
            ("a",): 1,
            ("a", "b"): 1,
            ("a", "c"): 1,
            ("a", "d"): 1,
            ("a", "d", 0): 1,
            ("a", "d", 1): 1,
            ("e",): 2,
        },
    ),
    "arrays in arrays": (
        """\
        a = [[1, 2],
          [3]]
        """,
        {("a",): 1, ("a", 0): 1, ("a", 0, 0): 1, ("a", 0, 1): 1, ("a", 1): 2, ("a", 1, 0): 2},
    ),
    "dates with a space, signed and special numbers": (
        """\
        a = [1979-05-27 07:32:00Z, 1979-05-27, 07:32:00]
        b = { x = 1979-05-27 07:32:00.5-07:00, y = -inf }
        c = +1_000.5e-3 # end
        d = 0xff
        """,
        {
            ("a",): 1,
            ("a", 0): 1,
            ("a", 1): 1,
            ("a", 2): 1,
            ("b",): 2,
            ("b", "x"): 2,
            ("b", "y"): 2,
            ("c",): 3,
            ("d",): 4,
        },
    ),
    "dotted keys in an inline table": (
        """\
        a = {b.c = 1, b.d = {}}
        """,
        {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "b", "d"): 1},
    ),
    "nothing but a comment": ("# a = 1", {}),
    "no line break at the end": ("a = 1\nb = 'x'", {("a",): 1, ("b",): 2}),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_lines_of_keys(text: str, expected: dict[KeyPath, int]) -> None:
    """Each form of TOML gives exactly the keys that `tomllib` sees, each at the line where it stands."""
    text = dedent(text)
    assert key_lines(text) == expected
    assert set(paths_of(tomllib.loads(text))) == set(expected)


def test_windows_line_ends() -> None:
    """Carriage returns neither shift lines nor become part of a value."""
    assert key_lines('[a]\r\nb = """x\r\ny"""\r\nc = 1\r\n') == {("a",): 1, ("a", "b"): 2, ("a", "c"): 4}


# ---- documents drawn at random, written in a random style, with the line of each key noted while writing ----

NAMES = st.one_of(st.sampled_from(["a", "b", "c-1", "_x"]), st.text(st.characters(codec="utf-8"), max_size=4))
BLANKS = st.sampled_from(["", " ", "\t", "  "])
BREAKS = st.sampled_from(["", "\n", "\n\n", " # ] } ' \" [x]\n", "\r\n  "])
SCALARS = st.one_of(
    st.integers(-99, 99).map(str),
    st.sampled_from(["1.5e3", "true", "inf", "1979-05-27 07:32:00", "07:32:00", "0b1"]),
    st.sampled_from(['""', "''", '"a\\"]"', "'\\'", '"""\n[a]\nb=1\\""""""', "'''\n'x\n'''''", '"#,}"']),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=5)


class Writer:
    """Writes a document and notes the line of every key and entry."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.text = ""
        self.lines: dict[KeyPath, int] = {}
        self._draw = draw

    def put(self, text: str) -> None:
        self.text += text

    def note(self, path: KeyPath) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def blank(self) -> None:
        self.put(self._draw(BLANKS))

    def key(self, name: str) -> None:
        bare = name.isascii() and name.replace("-", "a").isidentifier()
        styles = [name] if bare else []
        if name.isprintable() and "'" not in name:
            styles.append(f"'{name}'")
        styles.append('"' + "".join(f"\\U{ord(letter):08x}" for letter in name) + '"')
        self.put(self._draw(st.sampled_from(styles)))

    def table(self, path: KeyPath, table: dict[str, Any]) -> None:
        """The simple entries, then those tables and arrays of tables that get headers of their own."""
        later = []
        for name, value in table.items():
            if self._has_header(value):
                later.append((name, value))
            else:
                self.blank()
                self.pair((*path, name), name, value)
                self.put(self._draw(st.sampled_from(["\n", " # c = 1\n", "\r\n\n"])))
        for name, value in later:
            entries = value if isinstance(value, list) else [value]
            for index, entry in enumerate(entries):
                inner = (*path, name, index) if isinstance(value, list) else (*path, name)
                if index == 0:
                    self.note((*path, name))
                self.note(inner)
                self.header(inner, double=isinstance(value, list))
                self.table(inner, entry)

    def _has_header(self, value: Any) -> bool:
        tables = isinstance(value, dict) or (
            value and isinstance(value, list) and all(isinstance(v, dict) for v in value)
        )
        return bool(tables) and self._draw(st.booleans())

    def header(self, path: KeyPath, *, double: bool) -> None:
        self.put("[[" if double else "[")
        for index, name in enumerate([part for part in path if isinstance(part, str)]):
            if index:
                self.blank()
                self.put(".")
            self.blank()
            self.key(name)
        self.blank()
        self.put("]]\n" if double else "]  # [x]\n")

    def pair(self, path: KeyPath, name: str, value: Any) -> None:
        self.note(path)
        self.key(name)
        self.blank()
        self.put("=")
        self.blank()
        self.value(path, value)

    def value(self, path: KeyPath, value: Any) -> None:
        if isinstance(value, str):
            self.put(value)
        elif isinstance(value, list):
            self.put("[")
            for index, entry in enumerate(value):
                self.put(self._draw(BREAKS))
                self.note((*path, index))
                self.value((*path, index), entry)
                self.put(self._draw(BREAKS))
                self.put(
                    "," if index + 1 < len(value) else self._draw(st.sampled_from(["", ",", ",\n# ]\n"]))
                )
            self.put("]")
        else:
            self.put("{")
            for index, (name, entry) in enumerate(value.items()):
                self.put("," if index else "")
                self.blank()
                self.pair((*path, name), name, entry)
                self.blank()
            self.put("}")


@st.composite
def written_documents(draw: st.DrawFn) -> Writer:
    writer = Writer(draw)
    writer.table((), draw(DOCUMENTS))
    return writer


@settings(max_examples=300, deadline=None)
@given(written_documents())
def test_any_document(writer: Writer) -> None:
    """Whatever the nesting and the style, the keys are those of `tomllib` and the lines those where they were written."""
    assert set(paths_of(tomllib.loads(writer.text))) == set(writer.lines)
    assert key_lines(writer.text) == writer.lines
