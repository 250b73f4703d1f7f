"""A key lets its owner in; everything else is refused in the same words, after the same time."""

import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from hashlib import sha256
from itertools import cycle
from math import sqrt
from random import Random
from statistics import fmean, variance
from time import perf_counter_ns
from traceback import format_exception
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.errors import InvalidApiKey
from router.config.model import KeyConfig
from router.control.keys import ANONYMOUS, Caller, KeyRing

KEY = "sk-turnout-c257BdcOwsR5RuhUgEEZMdStIz-8wUph4Oz-ZtG7dlk"
EXPIRY = datetime(2030, 1, 1, tzinfo=UTC)


def entry(key: str, name: str = "k", **more: Any) -> KeyConfig:
    digest = f"sha256:{sha256(key.encode()).hexdigest()}"
    return KeyConfig(id=name, digest=digest, tenant=f"tenant of {name}", **more)


def ring(now: float = 0.0) -> KeyRing:
    keys = [
        entry(KEY),
        entry("other", "o", models=("a",), priority="high"),
        entry("old", "e", expires=EXPIRY),
    ]
    return KeyRing(keys, lambda: now)


def refusal(keys: KeyRing, authorization: str | None, api_key: str | None = None) -> InvalidApiKey:
    with pytest.raises(InvalidApiKey) as raised:
        keys.caller_of(authorization, api_key)
    return raised.value


def test_each_key_has_its_caller() -> None:
    """With all that the configuration says of it."""
    assert ring().caller_of(f"Bearer {KEY}") == Caller("k", "tenant of k", None, "normal")
    assert ring().caller_of("Bearer other") == Caller("o", "tenant of o", frozenset({"a"}), "high")


def test_models_that_a_caller_may_use() -> None:
    """Those of its key; all without any; none with an empty list."""
    assert ring().caller_of(f"Bearer {KEY}").may_use("anything")
    other = ring().caller_of("Bearer other")
    assert other.may_use("a")
    assert not other.may_use("b")
    assert not Caller("i", "t", frozenset()).may_use("a")


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}", "Bearer {} "])
def test_the_scheme_is_read_as_http_has_it(header: str) -> None:
    """In any case (RFC 9110, 11.1), and with the white space that clients send."""
    assert ring().caller_of(header.format(KEY)).key_id == "k"


def test_x_api_key_counts_where_there_is_no_authorization() -> None:
    """Where there is one, that alone is believed."""
    assert ring().caller_of(None, KEY).key_id == "k"
    assert ring().caller_of("Bearer other", KEY).key_id == "o"
    refusal(ring(), "Bearer wrong", KEY)
    refusal(ring(), "", KEY)
    refusal(ring(), f"Basic {KEY}", KEY)


def test_a_key_ends_with_its_moment() -> None:
    """And not a moment before."""
    end = EXPIRY.timestamp()
    assert ring(end - 0.001).caller_of("Bearer old").key_id == "e"
    refusal(ring(end), "Bearer old")
    assert ring(end + 1e9).caller_of(f"Bearer {KEY}").key_id == "k"


def test_whatever_is_wrong_the_answer_is_the_same() -> None:
    """Missing, malformed, unknown and expired cannot be told apart."""
    keys = ring(EXPIRY.timestamp())
    headers = [
        None,
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer{KEY}",
        "Bearer nobody's",
        "Bearer old",
    ]
    refusals = [refusal(keys, header) for header in headers] + [refusal(keys, None, "nobody's")]
    assert len({each.body() for each in refusals}) == 1
    assert {(each.status, each.code) for each in refusals} == {(401, "invalid_api_key")}


@given(st.text() | st.none(), st.text() | st.none())
def test_no_header_is_a_defect(authorization: str | None, api_key: str | None) -> None:
    """Whatever bytes a client sends, it is refused."""
    refusal(ring(), authorization, api_key)


def test_bytes_beyond_ascii_are_taken_as_they_came() -> None:
    """Headers are decoded as Latin-1; the digest is of the bytes."""
    keys = KeyRing([entry("schlüssel")], lambda: 0.0)
    assert keys.caller_of("Bearer " + "schlüssel".encode().decode("latin-1")).key_id == "k"


def test_without_keys_everyone_is_the_same_caller() -> None:
    """With or without a key of their own."""
    keys = KeyRing([], lambda: 0.0)
    assert keys.caller_of(None) is keys.caller_of("Bearer anything") is ANONYMOUS
    assert (ANONYMOUS.tenant, ANONYMOUS.models, ANONYMOUS.priority) == ("anonymous", None, "normal")


def test_a_caller_cannot_be_changed() -> None:
    """It is shared by all requests of its key."""
    with pytest.raises(FrozenInstanceError):
        ring().caller_of(f"Bearer {KEY}").tenant = "another"  # type: ignore[misc]


def test_no_text_holds_a_key() -> None:
    """Neither what is kept nor what is refused, in full, nor what is reachable from the ring."""
    keys = ring()
    refused = refusal(keys, f"Bearer {KEY}x")
    texts = [
        repr(keys),
        repr(keys.caller_of(f"Bearer {KEY}")),
        *format_exception(refused),
        refused.body().decode(),
    ]
    assert not [text for text in texts if KEY in text]
    seen: set[int] = set()
    pending: list[Any] = [keys]
    while pending:
        each = pending.pop()
        if id(each) in seen or isinstance(each, type) or callable(each) or hasattr(each, "__path__"):
            continue
        seen.add(id(each))
        assert each not in (KEY, KEY.encode(), f"Bearer {KEY}")
        pending += gc.get_referents(each)
    assert len(seen) > 10


# ---- timing ----

SAMPLES = 100_000


def welch_t(first: list[int], second: list[int]) -> float:
    """Of two samples without their slowest tenth, which is the machine's and not the code's."""
    cut = sorted(first + second)[(len(first) + len(second)) * 9 // 10]
    a, b = ([value for value in sample if value < cut] for sample in (first, second))
    return (fmean(a) - fmean(b)) / sqrt(variance(a) / len(a) + variance(b) / len(b))


def timing_t(check: Callable[[str], object]) -> float:
    """How sure it is that keys which differ from `KEY` in their first or last byte take unlike times to check.

    Which kind comes next is chance, and each is a string of its own: neither order nor place in memory is of
    one kind.
    """
    rng = Random()
    wrong = [letter for letter in map(chr, range(33, 127)) if letter not in (KEY[0], KEY[-1])]
    took: tuple[list[int], list[int]] = ([], [])
    order = [rng.randrange(2) for _ in range(2 * SAMPLES)]
    headers = [
        f"Bearer {KEY[:-1]}{rng.choice(wrong)}" if kind else f"Bearer {rng.choice(wrong)}{KEY[1:]}"
        for kind in order
    ]
    gc.disable()
    try:
        for kind, header in zip(order, headers, strict=True):
            began = perf_counter_ns()
            check(header)
            took[kind].append(perf_counter_ns() - began)
    finally:
        gc.enable()
    return abs(welch_t(*took))


@pytest.mark.slow
def test_time_says_nothing_of_how_much_of_a_key_is_right() -> None:
    """Welch's t between keys wrong at the first and at the last byte stays below 4.5, over 10^5 samples each.

    A comparison that stops at the first difference is found out by the same measurement.
    """
    # Of one ring, some wrong keys meet others in the table and some do not, whichever byte of them is wrong.
    rings = cycle([ring() for _ in range(211)])

    def looked_up(header: str) -> None:
        with suppress(InvalidApiKey):
            next(rings).caller_of(header)

    def compared(header: str) -> bool:
        return all(given == right for given, right in zip(header[7:], KEY, strict=True))

    # Of three, the least: a machine that is disturbed for a while makes one large, a leak all of them.
    assert min(timing_t(looked_up) for _ in range(3)) < 4.5
    assert min(timing_t(compared) for _ in range(3)) > 4.5


def test_other_keys_take_their_place() -> None:
    """At once and exactly: who has none gets in where there are none any more."""
    keys = ring()
    keys.renew([entry("new", "n")])
    assert keys.caller_of("Bearer new").key_id == "n"
    refusal(keys, f"Bearer {KEY}")
    keys.renew([])
    assert keys.caller_of(None) is ANONYMOUS
