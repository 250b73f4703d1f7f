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
    text += '[policies.p]\nkind = "power_of_two"' + MODEL + '[models.m.shadow]\nversion = "v1"'
    assert unavailable(decode(text, environ={})) == ()


def test_the_order_of_the_file() -> None:
    """Several refusals come as their lines do."""
    text = (
        MODEL
        + MORE
        + "discover = { kind = 'dns', engine = 'vllm', port = 1, host = 'h' }\n"
        + "[retries]\ncontinue_streams = true\n"
    )
    assert [mistake.line for mistake in unavailable(decode(text, environ={}))] == [9, 11]
