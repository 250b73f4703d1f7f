"""What clients are told of limits is true, in both families, and can be read by strict parsers."""

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.limits.ask import Ask, Budget
from policies.limits.book import Book
from policies.limits.gcra import Rate
from router.api.limit_headers import Kind, LimitHeaders, Quota, duration, jittered_us
from tests.support.structured_fields import Item, NoList, Token, parse_list

REQUESTS = Quota("per-tenant", "requests", Rate(600, 60))
TOKENS = Quota("per-tenant", "tokens", Rate(200_000, 60))
BOTH = LimitHeaders([REQUESTS, TOKENS])

quotas = st.builds(
    Quota,
    st.from_regex(r"[A-Za-z0-9._/:-]{1,128}", fullmatch=True),
    st.sampled_from(["requests", "tokens"]),
    st.builds(Rate, st.floats(0.01, 1e9), st.floats(0.01, 86_400)),
)
backlogs = st.integers(0, 10**12)
stands = st.lists(
    st.tuples(quotas, backlogs), min_size=1, max_size=6, unique_by=lambda s: (s[0].name, s[0].kind)
)


def told(headers: LimitHeaders, *backlogs_us: int, wait_us: int = 0) -> dict[str, str]:
    given = headers.of(backlogs_us, wait_us)
    decoded = {name.decode(): value.decode() for name, value in given}
    assert len(decoded) == len(given)
    return decoded


def read_duration(text: str) -> Fraction:
    """Seconds, as Go's time.ParseDuration reads them."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": Fraction(1, 1000)}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    assert "".join(number + unit for number, unit in parts) == text
    return sum((Fraction(number) * units[unit] for number, unit in parts), Fraction(0))


# ---- as they look ----


def test_one_limit_with_requests_and_tokens() -> None:
    """Every header, byte for byte."""
    assert BOTH.of((1_234_567, 31_500_000)) == (
        (b"x-ratelimit-limit-requests", b"600"),
        (b"x-ratelimit-remaining-requests", b"587"),
        (b"x-ratelimit-reset-requests", b"1.235s"),
        (b"x-ratelimit-limit-tokens", b"200000"),
        (b"x-ratelimit-remaining-tokens", b"95000"),
        (b"x-ratelimit-reset-tokens", b"31.5s"),
        (b"ratelimit", b'"per-tenant-requests";r=587;t=2, "per-tenant-tokens";r=95000;t=32'),
        (
            b"ratelimit-policy",
            b'"per-tenant-requests";q=600;w=60, "per-tenant-tokens";q=200000;qu="turnout-tokens";w=60',
        ),
    )


def test_without_budgets_nothing_is_said() -> None:
    """An empty list may not be sent (RFC 9651, 3.1)."""
    assert LimitHeaders([]).of(()) == ()


def test_a_budget_of_one_kind_says_nothing_of_the_other() -> None:
    """No client is told of a limit that is not there."""
    assert not [name for name in told(LimitHeaders([TOKENS]), 5) if name.endswith("requests")]


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (120, "120ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (8_640, "8.64s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (86_400, "1m26.4s"),
        (3_600_500, "1h0m0.5s"),
        (360_000_000, "100h0m0s"),
    ],
)
def test_durations_are_written_as_go_writes_them(time_ms: int, text: str) -> None:
    """Which is what OpenAI's clients parse."""
    assert duration(time_ms) == text.encode()


@given(st.integers(0, 10**10))
def test_a_duration_is_read_back_to_the_millisecond(time_ms: int) -> None:
    """None is lost, however long it is."""
    assert read_duration(duration(time_ms).decode()) * 1000 == time_ms


# ---- as they are true ----


@given(stands)
def test_both_families_agree(stands: list[tuple[Quota, int]]) -> None:
    """OpenAI's is one of the draft's items, the tightest of its kind; and nothing remains that is not there."""
    headers = told(LimitHeaders([quota for quota, _ in stands]), *(us for _, us in stands))
    items, policies = parse_list(headers["ratelimit"]), parse_list(headers["ratelimit-policy"])
    names = [f"{quota.name}-{quota.kind}" for quota, _ in stands]
    assert [name for name, _ in items] == [name for name, _ in policies] == names
    for kind in {quota.kind for quota, _ in stands}:
        of_kind = [
            (item[1]["r"], -item[1]["t"], policy[1]["q"])  # type: ignore[operator]
            for item, policy, (quota, _) in zip(items, policies, stands, strict=True)
            if quota.kind == kind
        ]
        remaining = int(headers[f"x-ratelimit-remaining-{kind}"])
        reset_s = -(-read_duration(headers[f"x-ratelimit-reset-{kind}"]) // 1)
        limit = int(headers[f"x-ratelimit-limit-{kind}"])
        assert (remaining, -reset_s, limit) in of_kind
        assert remaining == min(of_kind)[0]
        assert 0 <= remaining <= limit


@given(stands)
def test_policies_have_the_parameters_of_the_draft(stands: list[tuple[Quota, int]]) -> None:
    """Whole numbers, a window of at least a second, and for tokens alone a unit, of our own."""
    headers = LimitHeaders([quota for quota, _ in stands])
    first = told(headers, *(us for _, us in stands))["ratelimit-policy"]
    for (_, parameters), (quota, _) in zip(parse_list(first), stands, strict=True):
        assert type(parameters["q"]) is type(parameters["w"]) is int
        assert parameters["w"] >= 1  # type: ignore[operator]
        assert parameters.get("qu") == (None if quota.kind == "requests" else "turnout-tokens")
    assert told(headers, *(0 for _ in stands))["ratelimit-policy"] == first


@given(quotas, backlogs)
def test_who_waits_for_the_reset_finds_a_full_bucket(quota: Quota, backlog_us: int) -> None:
    """Also out of debt, in which nothing remains; and in both families."""
    headers = told(LimitHeaders([quota]), backlog_us)
    if backlog_us >= quota.rate.window_us:
        assert headers[f"x-ratelimit-remaining-{quota.kind}"] == "0"
    ((_, parameters),) = parse_list(headers["ratelimit"])
    for reset_s in (read_duration(headers[f"x-ratelimit-reset-{quota.kind}"]), Fraction(parameters["t"])):  # type: ignore[arg-type]
        left_us = max(0, backlog_us - int(reset_s * 1_000_000))
        assert left_us == 0
        assert reset_s * 1_000_000 <= backlog_us * Fraction(11, 10) + 1_000_000


def test_what_remains_can_be_had_and_no_more() -> None:
    """A client alone that takes what it is told gets it, and one more is refused; after the reset, all of it."""
    rate = Rate(120, 15)
    headers, book = LimitHeaders([Quota("l", "requests", rate)]), Book()

    def ask(number: int) -> Ask:
        return Ask(str(number), (Budget("k", rate.cost_us(1), rate.window_us),))

    now_us = 1_000_000
    verdict = book.admit(ask(0), now_us)
    remaining = int(told(headers, *verdict.backlogs_us)["x-ratelimit-remaining-requests"])
    assert [book.admit(ask(n), now_us).admitted for n in range(remaining + 1)] == [True] * remaining + [False]
    full = told(headers, *book.look(ask(0), now_us).backlogs_us)
    now_us += int(read_duration(full["x-ratelimit-reset-requests"]) * 1_000_000)
    assert [book.admit(ask(n), now_us).admitted for n in range(31)] == [True] * 30 + [False]


def test_the_tightest_is_where_least_remains() -> None:
    """And of two with nothing, the one that takes longer."""
    kind: Kind = "tokens"
    names = [Quota(name, kind, Rate(60 * size, 60)) for name, size in (("a", 100), ("b", 10), ("c", 1_000))]
    headers = LimitHeaders(names)
    assert told(headers, 0, 0, 0)["x-ratelimit-limit-tokens"] == "600"
    assert told(headers, 0, 0, 59_999_000)["x-ratelimit-limit-tokens"] == "60000"
    in_debt = told(headers, 70_000_000, 60_000_000, 65_000_000)
    assert (in_debt["x-ratelimit-limit-tokens"], in_debt["x-ratelimit-reset-tokens"]) == ("6000", "1m10s")


def test_a_refusal_names_no_time_after_its_own() -> None:
    """A client may believe `retry-after` or `t`: the one is never later than the other."""
    items = parse_list(told(BOTH, 60_000_000, 9_000_000, wait_us=2_400_000)["ratelimit"])
    assert [item[1]["t"] for item in items] == [3, 3]
    assert told(BOTH, 60_000_000, 9_000_000, wait_us=2_400_000)["x-ratelimit-reset-requests"] == "1m0s"


def test_jitter_is_only_for_long_waits_and_only_later() -> None:
    """Up to a tenth, from some seconds on."""
    assert jittered_us(5_000_000, 1.0) == 5_000_000
    assert jittered_us(60_000_000, 0.0) == 60_000_000
    assert 65_000_000 < jittered_us(60_000_000, 0.999) <= 66_000_000


def test_a_bucket_without_a_number_is_refused() -> None:
    """Integers of structured fields end at 15 digits."""
    with pytest.raises(ValueError, match="'l' holds more than"):
        Quota("l", "tokens", Rate(1e16, 60))


# ---- the parser that the above relies on ----

LISTS: dict[str, list[Item]] = {
    "": [],
    '"a";r=1;t=2,  "b"': [("a", {"r": 1, "t": 2}), ("b", {})],
    "a, 1.5 ,?1": [(Token("a"), {}), (Decimal("1.5"), {}), (True, {})],
    'x;a;b=?0;c="q\\"\\\\"; d=:aGk=:': [
        (Token("x"), {"a": True, "b": False, "c": 'q"\\', "d": b"hi"}),
    ],
    "-5;*k=*t": [(-5, {"*k": Token("*t")})],
}


@pytest.mark.parametrize(("text", "items"), LISTS.items())
def test_lists_are_parsed(text: str, items: list[Item]) -> None:
    """Items of every sort, with parameters; a token is no string."""
    parsed = parse_list(text)
    assert parsed == items
    assert [type(value) for value, _ in parsed] == [type(value) for value, _ in items]


@pytest.mark.parametrize(
    "text",
    [
        '"a",',
        ",",
        '"a" "b"',
        '"a";',
        '"a";R=1',
        '"a";r=',
        '"a" ;r=1',
        '"é"',
        '"a\\b"',
        '"a',
        "1234567890123456",
        "1.",
        "1.2345",
        "?2",
        ":a:",
        "'a'",
        "a\t",
    ],
)
def test_what_is_no_list_is_refused(text: str) -> None:
    """As the RFC's algorithm would."""
    with pytest.raises(NoList):
        parse_list(text)
