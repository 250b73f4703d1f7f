"""What a change means, in words."""

from router.config.decode import decode
from router.config.differences import differences
from tests.support.configs import EVERYTHING

BEFORE = """
[models.m]
stable = "v1"
aliases = ["gpt-4o-mini", "old"]
[models.m.versions.v1]
served_name = "org/m"
replicas = [ { url = "http://10.0.0.1:8000", engine = "vllm", api_key = "s3cret-one" } ]
[models.m.versions.v2]
served_name = "org/m"
replicas = [ { url = "http://10.0.0.2:8000", engine = "vllm" } ]
[models.gone]
stable = "v1"
[models.gone.versions.v1]
served_name = "org/g"
replicas = [ { url = "http://10.0.0.3:8000", engine = "tgi" } ]
[policies.mine]
kind = "power_of_two"
[[limits]]
name = "per-tenant"
per = ["tenant"]
requests_per_minute = 600
[[limits]]
name = "gone"
concurrency = 4
"""


def told(before: str, after: str) -> list[str]:
    return [each.text for each in differences(decode(before), decode(after))]


def test_nothing_changes() -> None:
    """Other words, the same meaning."""
    assert told(BEFORE, BEFORE + "\n# a word\n[timeouts]\nconnect_s = 1.0\n") == []


def test_versions_names_and_replicas() -> None:
    """What comes, what goes, and who gets what."""
    after = BEFORE.replace(
        'stable = "v1"\naliases = ["gpt-4o-mini", "old"]', 'stable = "v3"\naliases = ["gpt-4o-mini", "new"]'
    )
    after = after.replace("[models.m.versions.v2]", "[models.m.versions.v3]")
    after = after.replace(
        '"http://10.0.0.2:8000", engine = "vllm" }',
        '"http://10.0.0.2:8000", engine = "vllm" }, { url = "http://10.0.0.4:8000", engine = "tgi" }',
    )
    after = after.replace('api_key = "s3cret-one"', 'api_key = "s3cret-two", weight = 2')
    after = after.replace("models.gone", "models.fresh")
    sentences = told(BEFORE, after)
    assert sentences == [
        "model gone removed: clients that name gone get 404",
        "model fresh added, stable v1, versions v1 (1 replica)",
        "m: version v3 added with 2 replicas",
        "m: version v2 removed: m@v2 gets 404 version_retired, what is open there finishes",
        "m v1: replica 10.0.0.1:8000: weight: 1 -> 2",
        "m v1: replica 10.0.0.1:8000: api_key: ******** -> ********",
        "m: stable is v3 instead of v1: clients that name m, gpt-4o-mini now get it",
        "clients that name new now get m v3",
        "old is no name any more: clients that name it get 404",
    ]
    assert "s3cret" not in "".join(sentences)


def test_replicas_of_a_version() -> None:
    """One comes for another one; the version's own options too."""
    after = BEFORE.replace("10.0.0.2:8000", "10.0.0.5:8000").replace(
        '[models.m.versions.v2]\nserved_name = "org/m"', '[models.m.versions.v2]\nserved_name = "org/n"'
    )
    assert told(BEFORE, after) == [
        "m v2: replica 10.0.0.5:8000 (vllm) added",
        "m v2: replica 10.0.0.2:8000 removed: what is open there finishes",
        "m v2: served_name: org/m -> org/n",
    ]


def test_policies_that_are_used() -> None:
    """And no others."""
    used = BEFORE.replace('aliases = ["gpt', 'policy = "mine"\naliases = ["gpt')
    assert told(BEFORE, used) == ["m: policy: expected_latency -> mine"]
    tuned = 'kind = "power_of_two"\nchoices = 4'
    assert told(used, used.replace('kind = "power_of_two"', tuned)) == ["policy mine: choices: 2 -> 4, for m"]
    assert told(BEFORE, BEFORE.replace('kind = "power_of_two"', tuned)) == []
    other = used.replace('kind = "power_of_two"', 'kind = "random"')
    assert told(used, other) == [
        "policy mine is random instead of power_of_two, for m: what it has learned is gone"
    ]


def test_keys_and_limits() -> None:
    """With their units; the digest of a key is nobody's business."""
    key = '[[keys]]\nid = "k"\ntenant = "t"\ndigest = "sha256:{}"\n'
    limits = BEFORE.replace("= 600", "= 300").replace('name = "gone"', 'name = "new"')
    assert told(BEFORE, limits + key.format("0" * 64)) == [
        "every request needs a key now",
        "key k added, for t",
        "limit new added: 4 requests at a time, for all together",
        "limit gone removed",
        "limit per-tenant: 600 -> 300 requests a minute",
    ]
    both = BEFORE + key.format("0" * 64)
    assert told(both, BEFORE + key.format("1" * 64)) == ["key k is another one: who has the old one gets 401"]
    assert told(both, both + 'models = ["m"]\npriority = "low"\n') == [
        "key k: models: all -> m",
        "key k: priority: normal -> low",
    ]
    assert told(both, BEFORE) == ["everybody may call, without a key", "key k removed: who has it gets 401"]


def test_what_needs_a_restart_says_so() -> None:
    """Of the router's own options."""
    changed = differences(decode(BEFORE), decode("[server]\nport = 1\n[timeouts]\ntotal_s = 5\n" + BEFORE))
    assert [(each.path, each.text, each.restart) for each in changed] == [
        (("server", "port"), "server.port: 8080 -> 1 (a listener cannot move while it serves)", True),
        (("timeouts", "total_s"), "timeouts.total_s: 900 -> 5", False),
    ]


def test_everything_there_is_can_be_told() -> None:
    """Every section, from nothing and back, without a secret in any sentence."""
    full = decode(EVERYTHING, environ={"TOKEN": "t0ken"})
    for one, other in ((decode(BEFORE), full), (full, decode(BEFORE))):
        text = "\n".join(each.text for each in differences(one, other))
        assert text
        assert not [secret for secret in ("passw0rd", "t0ken", "inl1ne-k3y", "s3cret") if secret in text]
