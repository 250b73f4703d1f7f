"""Which limits apply, and that nobody's bucket is somebody else's."""

from hypothesis import given
from hypothesis import strategies as st

from policies.limits.gcra import Rate
from policies.limits.rules import _MAX_PLANS, Limit, Rules, Subject

ALICE = Subject("acme", "key-1", "alice", "llama", "v1")
RATE = Rate(60, 60)


def test_a_name_with_a_colon_is_no_other_limit() -> None:
    everybody = Limit(name="per-user", per=("api_key", "user"), match={}, requests=RATE)
    one_key = Limit(name="per-user:key-1", per=("user",), match={"api_key": "key-1"}, requests=RATE)

    assert everybody.key(ALICE, "r") != one_key.key(ALICE, "r")


def test_a_limit_applies_where_all_that_it_names_match() -> None:
    limit = Limit(name="l", match={"tenant": "acme", "model": "llama"}, requests=RATE)

    assert limit.applies_to(ALICE)
    assert not limit.applies_to(ALICE._replace(model="qwen"))
    assert not limit.applies_to(ALICE._replace(tenant="other"))


def test_a_plan_has_a_bucket_for_every_rate_and_the_tenants_own_come_first() -> None:
    everybody = Limit(name="all", match={}, tokens=RATE, concurrency=9)
    own = Limit(name="own", per=("tenant",), match={}, requests=RATE, tokens=RATE, concurrency=3)

    plan = Rules([everybody, own]).plan(ALICE)

    assert [(bucket.limit.name, bucket.kind) for bucket in plan.buckets] == [
        ("own", "requests"),
        ("own", "tokens"),
        ("all", "tokens"),
    ]
    assert [(limit.name, slots.most) for limit, slots in zip(plan.concurrent, plan.slots, strict=True)] == [
        ("own", 3),
        ("all", 9),
    ]
    assert plan.limit_of(2) == (everybody, "tokens")
    assert plan.limit_of(3) == (own, "concurrency")


def test_keys_of_one_tenant_live_together_and_those_of_everybody_too() -> None:
    per_user = Limit(name="u", per=("user",), match={}, requests=RATE)
    per_model = Limit(name="m", per=("model", "version"), match={}, requests=RATE)
    plan = Rules([per_user, per_model]).plan(ALICE)

    assert [bucket.budget.key for bucket in plan.buckets] == [
        "turnout:{t:acme}:u:alice:r",
        "turnout:{pool}:m:llama:v1:r",
    ]


@given(one=st.text(max_size=100), other=st.text(max_size=100))
def test_different_users_have_different_buckets_whatever_they_are_called(one: str, other: str) -> None:
    limit = Limit(name="u", per=("user", "model"), match={}, requests=RATE)
    keys = {limit.key(ALICE._replace(user=user), "r") for user in (one, other)}

    assert len(keys) == len({one, other})
    assert all(key.count("{") == key.count("}") == 1 and len(key) < 200 for key in keys)


def test_a_name_cannot_reach_into_the_next_field() -> None:
    limit = Limit(name="l", per=("user", "model"), match={}, requests=RATE)

    assert limit.key(ALICE._replace(user="a:b", model="c"), "r") != limit.key(
        ALICE._replace(user="a", model="b:c"), "r"
    )


def test_plans_of_many_users_do_not_pile_up() -> None:
    rules = Rules([Limit(name="u", per=("user",), match={}, requests=RATE)])
    for number in range(_MAX_PLANS + 500):
        rules.plan(ALICE._replace(user=str(number)))

    assert len(rules._plans) == _MAX_PLANS
    assert rules.plan(ALICE) is rules.plan(ALICE)


def test_rules_say_whether_the_user_has_to_be_known() -> None:
    assert Rules([Limit(name="u", per=("user",), match={}, requests=RATE)]).reads_user
    assert Rules([Limit(name="u", match={"user": "alice"}, requests=RATE)]).reads_user
    assert not Rules([Limit(name="u", per=("tenant",), match={}, requests=RATE)]).reads_user
