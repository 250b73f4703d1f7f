"""Values and keys as TOML spells them."""

import json
import re
from collections.abc import Mapping
from datetime import date, datetime, time

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_key(key: str) -> str:
    """Bare if it can be, else a basic string."""
    return key if _BARE.fullmatch(key) else _string(key)


def toml_value(value: object) -> str:
    """One line: tables and arrays are written inline."""
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        entries = ", ".join(f"{toml_key(key)} = {toml_value(entry)}" for key, entry in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(entry) for entry in value)}]"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return repr(value)


def _string(text: str) -> str:
    """A basic string. JSON escapes what TOML must escape, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
