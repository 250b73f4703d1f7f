"""What is written out is what `tomllib` reads."""

import tomllib
from datetime import date, datetime, time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from router.config.toml_text import toml_key, toml_value

TEXT = st.text(st.characters(codec="utf-8"))
SCALARS = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.sampled_from([date(2020, 1, 2), time(1, 2, 3), datetime(2020, 1, 2, 3, 4, 5)]),  # noqa: DTZ001
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8)


@settings(deadline=None)
@given(TEXT, VALUES)
def test_round_trip(key: str, value: Any) -> None:
    """Any text as a key and any value, however nested, comes back equal."""
    assert tomllib.loads(f"{toml_key(key)} = {toml_value(value)}") == {key: value}


def test_plain_words_stay_plain() -> None:
    """Names are quoted only if TOML asks for it."""
    assert toml_key("llama-8b") == "llama-8b"
    assert toml_key("org/m") == '"org/m"'
    assert toml_value({"v1": 95.0}) == "{ v1 = 95.0 }"
    assert toml_value(("a", 1)) == '["a", 1]'
