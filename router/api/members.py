"""The top level of a JSON object, strictly: each member once, values kept raw.

Router and replica must never read two different values for one name, so a repeated one is an error.
"""

import json
from collections.abc import Mapping

import msgspec

from router.api.errors import InvalidJson, RequestError

Members = Mapping[str, msgspec.Raw]
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SHORT = 2048
"""Up to so many bytes counting is quicker than looking; `find` passes over longer text many times faster."""
_SEQUELS = frozenset({b"},", b"],"})
_SPACED_SEQUELS = frozenset({b"}, ", b"], "})
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


def read_members(body: bytes, max_depth: int) -> dict[str, msgspec.Raw]:
    """The members of the JSON object `body`.

    Raises `InvalidJson` for what is not JSON or nests deeper than `max_depth`, `RequestError` for what is
    not an object or repeats a name.
    """
    try:
        if not body.isascii():
            body.decode()
        members = _OBJECT.decode(body)
    except msgspec.ValidationError:
        raise RequestError("the request body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(f"the request body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidJson(f"the request body nests deeper than {max_depth} levels") from None
    if _may_nest(body, max_depth) and _depth(body) > max_depth:
        raise InvalidJson(f"the request body nests deeper than {max_depth} levels")
    if not _proves_unique(body, members):
        _require_unique(body)
    return members


def write_members(members: Mapping[str, msgspec.Raw | bytes]) -> bytes:
    """A JSON object of raw values, compact at the top level."""
    parts: list[bytes | msgspec.Raw] = [b"{"]
    for name, value in members.items():
        parts += (b"," if len(parts) > 1 else b"", msgspec.json.encode(name), b":", value)
    parts.append(b"}")
    return b"".join(parts)


def _proves_unique(body: bytes, members: Members) -> bool:
    """Whether `body` is exactly these members, in one of the two usual layouts, and so repeats none."""
    size = 1 + 4 * len(members) + sum(map(len, members)) + sum(map(len, members.values()))
    if len(body) == size and members:
        return True
    spaced = b", ".join([b'"%b": %b' % (name.encode(), value) for name, value in members.items()])
    return body == b"{%b}" % spaced


def _require_unique(body: bytes) -> None:
    """Raises `RequestError` if an object of the top level names a member twice."""
    last: list[tuple[str, object]] = []

    def keep(pairs: list[tuple[str, object]]) -> None:
        nonlocal last
        last = pairs  # the outermost object is the last to end

    try:
        json.loads(body, object_pairs_hook=keep)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"the request body is not valid JSON: {error}") from None
    seen: set[str] = set()
    for name, _ in last:
        if name in seen:
            raise RequestError(f"the member {name!r} stands twice in the request body", param=name)
        seen.add(name)


def _may_nest(body: bytes, depth: int) -> bool:
    """Whether `body`, valid JSON, could nest deeper than `depth`, at the cost of a look at each opener.

    An opener right behind `},` or `],` stands at a level where one was just closed, so only the others can
    add a level: no more of them than `depth`, in strings or out of them, and it is not so deep.
    """
    if len(body) <= _SHORT and body.count(b"{") + body.count(b"[") <= depth:
        return False
    adding = 0
    for opener in (b"{", b"["):
        at = body.find(opener)
        while at >= 0:
            if body[at - 2 : at] not in _SEQUELS and body[at - 3 : at] not in _SPACED_SEQUELS:
                adding += 1
                if adding > depth:
                    return True
            at = body.find(opener, at + 1)
    return False


def _depth(body: bytes) -> int:
    """How deep `body`, valid JSON, nests; linear in its length, and in C but for the brackets."""
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(unescaped.split(b'"')[::2])
    depth = deepest = 0
    for byte in outside_strings.translate(None, _NO_BRACKETS):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest
