"""Single values: is it of the type that is wanted, and if not, what was written instead, in words."""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from difflib import get_close_matches
from math import isfinite
from typing import Any

from router.config.option import Complaint


def nearest(word: str, known: Sequence[str]) -> str:
    """`did you mean …?`, or all that is known when nothing is near."""
    close = get_close_matches(word, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(sorted(known))}" if known else "nothing may stand here"


def expect(raw: Any, kind: type, noun: str, example: str) -> Any:
    if isinstance(raw, kind):
        return raw
    raise Complaint(f"expected {noun}{example}, got {_noun(raw)}")


def choice(raw: Any, known: Sequence[str], example: str) -> str:
    word: str = expect(raw, str, "a string", example)
    if word in known:
        return word
    raise Complaint(f"unknown value {word!r}; {nearest(word, known)}")


def scalar(kind: Any, raw: Any, example: str) -> Any:
    if kind is float and type(raw) is int:
        raw = _to_float(raw)
    if type(raw) is not kind:
        raise Complaint(f"expected {_NOUNS[kind]}{example}, got {_noun(raw)}{_hint(kind, raw)}")
    if kind is float and not isfinite(raw):
        raise Complaint(f"expected a finite number{example}, got {raw}")
    return raw


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)?")


def moment(raw: Any, example: str) -> datetime:
    """A TOML offset date-time, or the same in a string as RFC 3339 has it."""
    given = _read_moment(raw) if isinstance(raw, str) else raw
    if isinstance(given, time) or not isinstance(given, date):
        raise Complaint(f"expected a date and time{example}, got {_noun(raw)}")
    if not isinstance(given, datetime):
        raise Complaint(f"has no time of day; write {given.isoformat()}T00:00:00Z for its beginning in UTC")
    if given.tzinfo is None:
        raise Complaint(f"has no offset from UTC; write {given.isoformat()}Z if UTC is meant")
    return given


def _read_moment(text: str) -> date | str:
    try:
        return date.fromisoformat(text) if len(text) == len("2030-01-01") else _parse_moment(text)
    except ValueError:
        return text


def _parse_moment(text: str) -> datetime | str:
    return datetime.fromisoformat(text.upper()) if _RFC3339.fullmatch(text) else text


def _to_float(whole: int) -> float:
    try:
        return float(whole)
    except OverflowError:
        raise Complaint("is too large for a number") from None


_NOUNS: Mapping[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "a table",
}


def _noun(raw: Any) -> str:
    """What was written, in words: the value itself is not repeated, it could be a misplaced secret."""
    return str(raw).lower() if isinstance(raw, bool) else _NOUNS.get(type(raw), "a date or time")


def _hint(kind: type, raw: Any) -> str:
    if kind is str or not isinstance(raw, str):
        return ""
    literal = raw in ("true", "false") if kind is bool else raw.replace(".", "", 1).isdecimal()
    return ": write it without quotes" if literal else ""
