"""What goes on when a configuration changes, what is new, and what is gone."""

from collections.abc import Sequence
from random import Random

import pytest

from policies.routing.events import Prompt
from router.api.errors import ModelNotFound, VersionRetired
from router.config.decode import decode
from router.config.model import Config
from router.fleet.build import Tokenizers, build_fleet
from router.fleet.rebuild import Rebuilt, rebuild
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet

KEY = b"key"


def config(
    versions: dict[str, Sequence[str]],
    *,
    more: str = "",
    stable: str = "v1",
    policy: str = "expected_latency",
    version: str = "",
) -> Config:
    """Versions of one model, each with replicas by port and what else is said of them."""
    tables = "".join(
        f'[models.m.versions.{name}]\nserved_name = "served"\n{version}\nreplicas = [{", ".join(map(_entry, ports))}]\n'
        for name, ports in versions.items()
    )
    return decode(f'{more}\n[models.m]\nstable = "{stable}"\npolicy = "{policy}"\n{tables}')


def _entry(replica: str) -> str:
    port, _, more = replica.partition(" ")
    return f'{{ url = "http://10.0.0.1:{port}", engine = "vllm", id = "{port}" {more}}}'


def built(before: Config) -> Fleet:
    return build_fleet(before, Random(1), KEY)


def after(fleet: Fleet, before: Config, now: Config) -> Fleet:
    rebuilt = rebuild(fleet, before, now, KEY, Tokenizers())
    rebuilt.put_in_place()
    return rebuilt.fleet


def by_id(fleet: Fleet) -> dict[str, Replica]:
    return {replica.id: replica for replica in fleet.replicas}


def test_what_did_not_change_is_the_same() -> None:
    """Pools, policies, budgets and replicas, whatever else the file says now; routes and fleet are new."""
    before = config({"v1": ["1", "2"], "v2": ["3"]})
    fleet = built(before)
    pools, replicas = dict(fleet.pools), by_id(fleet)
    kept = {place: (pool.policy, pool.retries, pool.hasher, pool.sizes) for place, pool in pools.items()}
    new = after(fleet, before, config({"v1": ["1", "2"], "v2": ["3"]}, more="[timeouts]\ntotal_s = 5"))
    assert new is not fleet
    assert by_id(new) == replicas
    assert dict(new.pools) == pools
    assert {place: (p.policy, p.retries, p.hasher, p.sizes) for place, p in new.pools.items()} == kept


def test_a_policy_keeps_what_it_knows_when_replicas_come_and_go() -> None:
    """Of those that stay; of one that is gone nothing is kept, should it come back."""
    before = config({"v1": ["1", "2"]})
    fleet = built(before)
    pool = fleet.routes["m"].pool
    prompt = Prompt((1, 2, 3), 400, 128.0)
    for replica in pool.replicas:
        pool.lease_on(replica, _request(), _Facts(prompt), 1.0)
    hits = pool.policy._mirrors.hits(prompt)
    assert set(hits) == {"1", "2"}
    new = after(fleet, before, config({"v1": ["2", "3"]}))
    pool = new.routes["m"].pool
    assert pool is fleet.routes["m"].pool
    assert [replica.id for replica in pool.replicas] == ["2", "3"]
    assert {name: hit for name, hit in pool.policy._mirrors.hits(prompt).items() if hit} == {"2": 3}


def _request() -> object:
    from router.api.request import Endpoint
    from tests.router.engines.making import request

    return request(Endpoint.COMPLETIONS, {"model": "m", "prompt": "hello"})


class _Facts:
    """Of a prompt that is known."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.session = None


@pytest.mark.parametrize(
    ("now", "same"),
    [
        ("1 ", True),
        ("1 , weight = 2.0, max_in_flight = 3", True),
        ('1 , metrics_url = "http://10.0.0.1:9/metrics"', True),
        ('1 , api_key = "another"', False),
    ],
)
def test_a_replica_goes_on_as_long_as_it_is_the_same_process(now: str, same: bool) -> None:
    """What it may take is changed in place: what is in flight there stays counted."""
    before = config({"v1": ["1"]})
    fleet = built(before)
    (old,) = fleet.replicas
    old.in_flight = 2
    (new,) = after(fleet, before, config({"v1": [now]})).replicas
    assert (new is old) == same
    if "weight" in now:
        assert (new.weight, new.max_in_flight, new.limit, new.in_flight) == (2.0, 3, 3, 2)


def test_nothing_changes_before_it_is_put_in_place() -> None:
    """A change that is given up was none."""
    before = config({"v1": ["1"]})
    fleet = built(before)
    pool, (replica,) = fleet.routes["m"].pool, fleet.replicas
    policy = pool.policy
    rebuilt = rebuild(
        fleet, before, config({"v1": ["1 , weight = 9.0", "2"]}, policy="random"), KEY, Tokenizers()
    )
    assert isinstance(rebuilt, Rebuilt)
    assert pool.replicas == (replica,)
    assert (replica.weight, pool.policy, pool.policy_name) == (1.0, policy, "expected_latency")


def test_another_policy_is_told_of_new_leases_alone() -> None:
    """Those that are open end where they began."""
    before = config({"v1": ["1"]}, policy="round_robin")
    fleet = built(before)
    pool, (replica,) = fleet.routes["m"].pool, fleet.replicas
    lease = pool.lease_on(replica, _request(), _Facts(Prompt((1,), 4, 128.0)), 1.0)
    new = after(fleet, before, config({"v1": ["1"]}, policy="expected_latency"))
    assert new.routes["m"].pool.policy.learns
    assert new.routes["m"].pool.policy_name == "expected_latency"
    lease.close(None, 2.0)
    assert replica.in_flight == 0


def test_a_policy_is_the_same_however_it_is_written() -> None:
    """A kind by its name, or a table with that kind's defaults."""
    before = config({"v1": ["1"]}, policy="power_of_two")
    fleet = built(before)
    policy = fleet.routes["m"].pool.policy
    named = config({"v1": ["1"]}, policy="mine", more='[policies.mine]\nkind = "power_of_two"')
    new = after(fleet, before, named)
    assert new.routes["m"].pool.policy is policy
    assert new.routes["m"].pool.policy_name == "mine"
    tuned = config({"v1": ["1"]}, policy="mine", more='[policies.mine]\nkind = "power_of_two"\nchoices = 3')
    assert after(new, named, tuned).routes["m"].pool.policy is not policy


def test_other_hashes_are_another_policy() -> None:
    """What was learned by the old ones finds nothing any more."""
    before = config({"v1": ["1"], "v2": ["2"]})
    fleet = built(before)
    now = config({"v1": ["1"], "v2": ["2"]}, version="kv_block_tokens = 32")
    rebuilt = rebuild(fleet, before, now, KEY, Tokenizers())
    policies = {place: pool.policy for place, pool in fleet.pools.items()}
    rebuilt.put_in_place()
    assert [pool.policy is policies[place] for place, pool in rebuilt.fleet.pools.items()] == [False, False]
    assert rebuilt.anew == rebuilt.fleet.replicas == fleet.replicas


def test_a_replica_that_comes_waits_for_its_first_probe_unless_it_is_alone() -> None:
    """Where others serve nobody need meet one that is still loading; where none do, nobody else is there."""
    before = config({"v1": ["1"]})
    fleet = built(before)
    new = by_id(after(fleet, before, config({"v1": ["1", "2"], "v2": ["3"]})))
    assert {name: replica.up for name, replica in new.items()} == {"1": True, "2": False, "3": True}


def test_a_replica_that_moves_takes_along_what_is_known_of_its_process() -> None:
    """Its health, and what an operator wished of it."""
    before = config({"v1": ["1", "2"]})
    fleet = built(before)
    first, second = fleet.replicas
    first.judge_health(well=False)
    second.draining = True
    new = after(fleet, before, config({"v1": ["2"], "v2": ["1", "2"]}))
    moved = {(r.identity.version, r.id): (r.up, r.draining) for r in new.replicas}
    assert moved == {("v1", "2"): (True, True), ("v2", "1"): (False, False), ("v2", "2"): (True, True)}


def test_a_version_that_is_gone_is_said_to_be() -> None:
    """By its name alone, with what to use in its place; until it is there again. Others never were there."""
    before = config({"v1": ["1"], "v2": ["2"]})
    fleet = built(before)
    now = config({"v1": ["1"]})
    new = after(fleet, before, now)
    with pytest.raises(VersionRetired, match=r"m@v2 was retired; use 'm', or one of m@v1") as raised:
        new.route_for("m@v2")
    assert raised.value.headers == ((b"x-turnout-replacement", b"m"),)
    with pytest.raises(ModelNotFound):
        new.route_for("m@v3")
    again = after(new, now, before)
    assert again.route_for("m@v2").version == "v2"
    assert again.retired == ()


def test_a_change_of_the_queue_changes_what_bounds_a_replica() -> None:
    """Without a queue a replica has no bound but its own, and what is in flight stays counted."""
    before = config({"v1": ["1"]})
    fleet = built(before)
    (replica,) = fleet.replicas
    room = replica.room
    new = after(fleet, before, config({"v1": ["1"]}, more="[queue]\nmax_requests = 0"))
    assert new.replicas == (replica,)
    assert room is not None
    assert replica.room is None
