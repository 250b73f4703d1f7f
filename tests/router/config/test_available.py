"""What this release cannot do is refused by name and line, never ignored."""

import pytest

from router.config.available import unavailable
from router.config.decode import decode
from tests.support.configs import MODEL

MORE = "[models.m.versions.v2]\nserved_name = 'x'\n"

CASES = {
    "continued streams, asked for": (
        "[retries]\ncontinue_streams = true" + MODEL,
        "2: retries.continue_streams: going on with a broken stream is not available yet; write false",
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
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_a_feature_that_is_not_there(text: str, expected: str) -> None:
    """A valid configuration that asks for it decodes, and is then refused where it asks."""
    (mistake,) = unavailable(decode(text, "t.toml", environ={}))
    assert str(mistake) == f"t.toml:{expected}"


def test_what_is_there_is_not_refused() -> None:
    """Defaults, several workers, Redis, and everything a policy in the table can do, pass."""
    text = '[server]\nworkers = 2\n[redis]\nurl = "redis://h"\n[retries]\ncontinue_streams = false\n'
    text += '[policies.p]\nkind = "power_of_two"' + MODEL
    assert unavailable(decode(text, environ={})) == ()


def test_the_order_of_the_file() -> None:
    """Several refusals come as their lines do."""
    text = (
        MODEL
        + "[models.m.canary]\n[retries]\ncontinue_streams = true\n"
        + '[models.m.shadow]\nversion = "v1"\nfraction = 0.1'
    )
    assert [mistake.line for mistake in unavailable(decode(text, environ={}))] == [7, 9, 10]
