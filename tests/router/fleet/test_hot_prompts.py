"""What comes most often is kept, as it came; what comes once, is long, or is no text, is not."""

import json
from typing import Any

from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest
from router.fleet.facts import Facts
from router.fleet.hot_prompts import HALF_LIFE_S, MAX_BODY_BYTES, MAX_BYTES, HotPrompts
from router.fleet.prompts import PromptHasher

HASHER = PromptHasher(b"key", "m", "v1")
LOTS = 1_000_000


def chat(system: str, question: str = "?", **more: Any) -> InferenceRequest:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = json.dumps({"model": "m", "messages": messages, **more}).encode()
    return read_request(Endpoint.CHAT, "id", {"content-type": "application/json"}, body, RequestRules())


def note(kept: HotPrompts, request: InferenceRequest, now: float = 0.0, times: int = 1) -> None:
    for _ in range(times):
        kept.note(request, Facts(request, HASHER, "tenant"), now)


def bodies(kept: HotPrompts) -> list[bytes]:
    return [hot.request.body for hot in kept.hottest()]


def root(number: int) -> str:
    return f"{number} is the first word. " * 200


def test_the_hottest_come_first() -> None:
    kept = HotPrompts(2, LOTS)
    for number, times in ((1, 3), (2, 5), (3, 2)):
        note(kept, chat(root(number)), times=times)
    assert bodies(kept) == [chat(root(2)).body, chat(root(1)).body]


def test_what_came_once_is_not_kept() -> None:
    kept = HotPrompts(4, LOTS)
    for number in range(50):
        note(kept, chat(root(number)))
    assert bodies(kept) == []
    assert kept.kept_bytes == 0


def test_requests_with_one_root_are_one_and_the_shortest_stands_for_them() -> None:
    """Exactly as it came, salt and all, and for the same tenant."""
    kept = HotPrompts(4, LOTS)
    short = chat(root(1), "hm", cache_salt="s", user="u")
    for request in (
        chat(root(1), "long " * 100),
        chat(root(1), "longer " * 100),
        short,
        chat(root(1), "why " * 9),
    ):
        note(kept, request)
    (hot,) = kept.hottest()
    assert hot.request is short
    assert hot.prompt == Facts(short, HASHER, "tenant").prompt


def test_a_body_that_is_old_is_renewed() -> None:
    """The day in a system prompt is another one by then."""
    kept = HotPrompts(4, LOTS)
    old, new = chat(root(1), "short"), chat(root(1), "not so short")
    note(kept, old, times=2)
    note(kept, new, HALF_LIFE_S / 2)
    assert bodies(kept) == [old.body]
    note(kept, new, HALF_LIFE_S + 1)
    assert bodies(kept) == [new.body]


def test_heat_fades() -> None:
    """Eight requests of an hour ago are less than two of now."""
    kept = HotPrompts(1, LOTS)
    note(kept, chat(root(1)), times=8)
    note(kept, chat(root(2)), now=12 * HALF_LIFE_S, times=2)
    assert bodies(kept) == [chat(root(2)).body]


def test_the_coldest_makes_room_and_the_hot_stay() -> None:
    kept = HotPrompts(1, LOTS)
    note(kept, chat(root(0)), times=20)
    for number in range(1, 100):
        note(kept, chat(root(number)), times=2)
    assert bodies(kept) == [chat(root(0)).body]
    assert kept.kept_bytes <= 4 * len(chat(root(99)).body)


def test_tokens_bound_what_is_asked_for() -> None:
    """What does not fit is passed over for the sake of what does."""
    long, short = chat(root(1) * 4), chat(root(2))
    tokens = Facts(short, HASHER).prompt
    assert tokens is not None
    kept = HotPrompts(4, tokens.tokens)
    note(kept, long, times=9)
    note(kept, short, times=2)
    note(kept, chat(root(3)), times=2)
    assert len(bodies(kept)) == 1
    assert long.body not in bodies(kept)


def test_bytes_are_bounded() -> None:
    kept = HotPrompts(64, LOTS)
    for number in range(100):
        note(kept, chat(root(number), "x" * (MAX_BODY_BYTES - 10_000)), times=2)
    assert MAX_BYTES - MAX_BODY_BYTES < kept.kept_bytes <= MAX_BYTES


def test_what_is_short_or_huge_or_no_text_is_not_kept() -> None:
    kept = HotPrompts(4, LOTS)
    note(kept, chat("short"), times=3)
    note(kept, chat(root(1), "x" * MAX_BODY_BYTES), times=3)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"role": "user", "content": [{"type": "text", "text": root(2)}, image]}]
    body = json.dumps({"model": "m", "messages": parts}).encode()
    headers = {"content-type": "application/json"}
    note(kept, read_request(Endpoint.CHAT, "id", headers, body, RequestRules()), times=3)
    embedded = json.dumps({"model": "m", "input": root(3)}).encode()
    note(kept, read_request(Endpoint.EMBEDDINGS, "id", headers, embedded, RequestRules()), times=3)
    assert bodies(kept) == []
    text_parts = [{"role": "user", "content": [{"type": "text", "text": root(2)}]}]
    body = json.dumps({"model": "m", "messages": text_parts}).encode()
    note(kept, read_request(Endpoint.CHAT, "id", headers, body, RequestRules()), times=2)
    assert bodies(kept) == [body]


def test_completions_are_kept_too() -> None:
    kept = HotPrompts(4, LOTS)
    headers = {"content-type": "application/json"}
    body = json.dumps({"model": "m", "prompt": root(1)}).encode()
    note(kept, read_request(Endpoint.COMPLETIONS, "id", headers, body, RequestRules()), times=2)
    ids = json.dumps({"model": "m", "prompt": list(range(2_000))}).encode()
    note(kept, read_request(Endpoint.COMPLETIONS, "id", headers, ids, RequestRules()), times=2)
    assert set(bodies(kept)) == {body, ids}
