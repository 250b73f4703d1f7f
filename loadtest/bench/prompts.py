"""Request bytes, made before the clock starts: two constant pieces around a number of fixed width."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice, repeat

from loadtest.bench.workloads import Workload

CONVERSATIONS = 64
TURN_BYTES = 2048
_HOLE = "#" * 12
_WORDS = re.findall(
    r"\w+",
    "the engine holds a prefix of every prompt it has seen and gives back the blocks that nobody used for a "
    "while so the next request of the same conversation finds its keys and values where it left them",
)


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """`before` + twelve digits + `after` are the bytes of one HTTP request."""

    before: bytes
    after: bytes

    def numbered(self, number: int) -> bytes:
        return b"%b%012d%b" % (self.before, number, self.after)


def templates_for(workload: Workload, authority: str) -> tuple[RequestTemplate, ...]:
    """One template, or one for each conversation of a multi-turn workload."""
    count = CONVERSATIONS if workload.prompt == "multi_turn" else 1
    text = _text(workload.prompt_bytes + CONVERSATIONS * 97)
    return tuple(
        _template(_body(workload, text[97 * i : 97 * i + workload.prompt_bytes]), authority)
        for i in range(count)
    )


def requests_of(workload: Workload, authority: str, first_number: int) -> Iterator[bytes]:
    """Endless requests, conversation after conversation; no two are equal unless the workload says `same`."""
    templates = templates_for(workload, authority)
    if workload.prompt == "same":
        return repeat(templates[0].numbered(first_number))
    return (t.numbered(number) for number, t in enumerate(cycle(templates), start=first_number))


def _text(size: int) -> str:
    chance = random.Random(size)
    words = chance.choices(_WORDS, k=size // 3)
    return " ".join(words)[:size]


def _messages(workload: Workload, text: str) -> list[dict[str, str]]:
    tail = f" question {_HOLE}"
    if workload.prompt == "same":
        return [{"role": "user", "content": text[: -len(tail)] + tail}]
    if workload.prompt == "unique":
        return [{"role": "user", "content": _HOLE + text[: -len(_HOLE)]}]
    if workload.prompt == "shared":
        return [{"role": "system", "content": text[: -len(tail)]}, {"role": "user", "content": tail}]
    turns = [text[i : i + TURN_BYTES] for i in range(0, len(text), TURN_BYTES)]
    turns[-1] = turns[-1][: -len(tail)] + tail
    roles = ["system", *islice(cycle(("user", "assistant")), len(turns) - 1)]
    return [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]


def _body(workload: Workload, text: str) -> bytes:
    document: dict[str, object] = {"model": "m", "messages": _messages(workload, text)}
    if workload.streams:
        document |= {"max_tokens": workload.output_tokens, "stream": True}
    return json.dumps(document, separators=(",", ":")).encode()


def _template(body: bytes, authority: str) -> RequestTemplate:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {authority}\r\naccept: */*\r\n"
        "authorization: Bearer sk-bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()
    before, after = (head + body).split(_HOLE.encode())
    return RequestTemplate(before, after)
