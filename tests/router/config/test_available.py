"""What this release cannot do is refused by name and line, never ignored."""

import pytest

from policies.routing import POLICIES
from router.config.available import unavailable
from router.config.decode import decode
from tests.support.configs import MODEL

MORE = "[models.m.versions.v2]\nserved_name = 'x'\n"

CASES = {
    "workers": (
        "[server]\nworkers = 2" + MODEL,
        "2: server.workers: several workers are not available yet; write 1, and run one router per core",
    ),
    "redis": (
        '[redis]\nurl = "redis://h"' + MODEL,
        "1: redis: sharing through Redis is not available yet; remove the table",
    ),
    "continued streams, asked for": (
        "[retries]\ncontinue_streams = true" + MODEL,
        "2: retries.continue_streams: going on with a broken stream is not available yet; write false",
    ),
    "a policy": (
        MODEL.replace('"v1"', '"v1"\npolicy = "expected_latency"', 1),
        "4: models.m.policy: this kind is not available yet; available: {}",
    ),
    "a table of a policy": (
        '[policies.p]\nkind = "expected_latency"' + MODEL,
        "2: policies.p.kind: this kind is not available yet; available: {}",
    ),
    "split": (
        MODEL + "[models.m.split]\nweights = { v1 = 1 }",
        "7: models.m.split: splitting traffic is not available yet; without it stable gets everything",
    ),
    "shadow": (
        MODEL + '[models.m.shadow]\nversion = "v1"',
        "7: models.m.shadow: shadow traffic is not available yet; remove the table",
    ),
    "canary": (
        MODEL + "[models.m.canary]",
        "7: models.m.canary: releases are not available yet; remove the table",
    ),
    "discover": (
        MODEL + MORE + 'discover = { kind = "dns", host = "h", port = 1, engine = "tgi" }',
        "9: models.m.versions.v2.discover: discovery is not available yet; list the replicas",
    ),
    "expect": (
        MODEL + 'expect = { dtype = "float8" }',
        "7: models.m.versions.v1.expect: checking what a replica serves is not available yet; remove it",
    ),
    "keys": (
        f'[[keys]]\nid = "k"\ntenant = "t"\ndigest = "sha256:{0:064}"' + MODEL,
        "1: keys: client keys are not available yet; without them everyone may call",
    ),
    "limits": (
        '[[limits]]\nname = "l"\nconcurrency = 1' + MODEL,
        "1: limits: limits are not available yet; remove them",
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_a_feature_that_is_not_there(text: str, expected: str) -> None:
    """A valid configuration that asks for it decodes, and is then refused where it asks."""
    kinds = ", ".join(sorted(POLICIES))
    (mistake,) = unavailable(decode(text, "t.toml", environ={}))
    assert str(mistake) == f"t.toml:{expected.format(kinds)}"


def test_what_is_there_is_not_refused() -> None:
    """Defaults, and everything a policy in the table can do, pass."""
    text = '[retries]\ncontinue_streams = false\n[policies.p]\nkind = "power_of_two"' + MODEL
    assert unavailable(decode(text, environ={})) == ()


def test_the_order_of_the_file() -> None:
    """Several refusals come as their lines do."""
    text = MODEL + '[models.m.canary]\n[redis]\nurl = "redis://h"\n[server]\nworkers = 3'
    assert [mistake.line for mistake in unavailable(decode(text, environ={}))] == [7, 8, 11]
