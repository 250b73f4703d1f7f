"""Lists of structured fields, parsed as strictly as RFC 9651 (4.2) demands: one mistake and there is no list."""

import re
from base64 import b64decode
from binascii import Error
from decimal import Decimal

BareItem = int | Decimal | str | bool | bytes
Item = tuple[BareItem, dict[str, BareItem]]

_NUMBER = re.compile(r"-?\d+(?:\.\d*)?")
_STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_BOOLEAN = re.compile(r"\?([01])")
_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_SPACES = re.compile(r" *")
_COMMA = re.compile(r"[ \t]*,[ \t]*")


class Token(str):
    """A bare word, which is not the string of the same letters."""

    __slots__ = ()


class NoList(ValueError):
    """Not a list of structured fields."""


def parse_list(text: str) -> list[Item]:
    """The items and their parameters. Raises `NoList`. Inner lists, dates and display strings are refused."""
    text = text.strip(" ")
    if not text:
        return []
    parser = _Parser(text)
    items = [parser.item()]
    while parser.at < len(text):
        parser.take(_COMMA, "a comma")
        items.append(parser.item())
    return items


class _Parser:
    def __init__(self, text: str) -> None:
        self.at = 0
        self._text = text

    def take(self, pattern: re.Pattern[str], wanted: str) -> re.Match[str]:
        found = pattern.match(self._text, self.at)
        if found is None:
            raise NoList(f"expected {wanted} at {self.at} of {self._text!r}")
        self.at = found.end()
        return found

    def item(self) -> Item:
        return self._bare_item(), self._parameters()

    def _parameters(self) -> dict[str, BareItem]:
        parameters: dict[str, BareItem] = {}
        while self._text[self.at : self.at + 1] == ";":
            self.at += 1
            self.take(_SPACES, "spaces")
            key = self.take(_KEY, "a key")[0]
            parameters[key] = True
            if self._text[self.at : self.at + 1] == "=":
                self.at += 1
                parameters[key] = self._bare_item()
        return parameters

    def _bare_item(self) -> BareItem:
        begin = self._text[self.at : self.at + 1]
        if begin == '"':
            return re.sub(r"\\(.)", r"\1", self.take(_STRING, "a string")[1])
        if begin == ":":
            return _decoded(self.take(_BYTES, "a byte sequence")[1])
        if begin == "?":
            return self.take(_BOOLEAN, "a boolean")[1] == "1"
        if begin == "-" or begin.isdigit():
            return _number(self.take(_NUMBER, "a number")[0])
        return Token(self.take(_TOKEN, "an item")[0])


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except Error as error:
        raise NoList(str(error)) from None


def _number(text: str) -> int | Decimal:
    whole, point, fraction = text.lstrip("-").partition(".")
    if len(whole) > (12 if point else 15) or (point and not 1 <= len(fraction) <= 3):
        raise NoList(f"{text} has too many digits, or none after its point")
    return Decimal(text) if point else int(text)
