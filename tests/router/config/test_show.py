"""A configuration written out is the same configuration, and nothing in it tells a secret."""

import json
import tomllib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from router.config import option
from router.config.available import unavailable
from router.config.decode import decode
from router.config.model import Config
from router.config.show import to_plain, to_toml
from tests.support.configs import EVERYTHING, MODEL, single_options

SECRETS = ("t0ken", "passw0rd", "inl1ne-k3y")
ENVIRON = {"TOKEN": "t0ken"}


def without_masked(config: Config) -> Config:
    """`config` but for the secrets that stand in the file itself: those cannot be written out."""
    models = {
        name: replace(model, versions=_without_keys(model.versions)) for name, model in config.models.items()
    }
    return replace(config, redis=None, models=models)


def _without_keys(versions: Any) -> dict[str, Any]:
    return {
        name: replace(version, replicas=tuple(replace(each, api_key=None) for each in version.replicas))
        for name, version in versions.items()
    }


@pytest.mark.parametrize("every_option", [False, True])
@pytest.mark.parametrize("text", [MODEL, EVERYTHING], ids=["smallest", "everything"])
def test_round_trip(text: str, every_option: bool) -> None:
    """What is written out decodes to an equal configuration, and a second writing changes nothing."""
    config = decode(text, environ=ENVIRON)
    shown = to_toml(config, every_option=every_option)
    again = decode(shown, environ=ENVIRON)
    assert without_masked(again) == without_masked(config)
    assert again.admin == config.admin  # a reference is written out, so it is still the same secret
    assert to_toml(again, every_option=every_option) == shown


def test_secrets_are_masked_everywhere() -> None:
    """No representation, string, TOML or JSON of a configuration holds a secret, wherever it was read from."""
    config = decode(EVERYTHING, environ=ENVIRON)
    texts = [
        repr(config),
        str(config),
        f"{config.admin.token}{config.redis}",
        to_toml(config),
        to_toml(config, every_option=True),
        json.dumps(to_plain(config), default=str),
    ]
    for text in texts:
        assert not [secret for secret in SECRETS if secret in text]
    assert 'token = "env:TOKEN"' in to_toml(config)
    assert 'url = "redis://********@redis.local:6379/1"' in to_toml(config)
    assert 'api_key = "********"' in to_toml(config)


def test_effective_values_are_shown() -> None:
    """Without asking for more, every option in effect is there with its value, defaults too, and no prose."""
    shown = to_toml(decode(MODEL, environ={}))
    table = tomllib.loads(shown)
    assert table["server"]["port"] == 8080
    assert table["models"]["m"]["policy"] == "expected_latency"
    assert "#" not in shown


def test_every_option_is_shown_with_its_advice() -> None:
    """`every_option` states each option there is, set or as a comment, right after its advice."""
    shown = to_toml(decode(MODEL, environ={}), every_option=True)
    pairs = set(pairwise(line.partition(" = ")[0].removeprefix("#") for line in shown.splitlines()))
    for section, name, declared in single_options():
        assert (f" {option.advice(declared)}", name) in pairs, f"{section.__name__}.{name}"


def test_advice_is_given_once() -> None:
    """Of several replicas only the first is explained, and what the others do not set is left out."""
    shown = to_toml(decode(EVERYTHING, environ=ENVIRON), every_option=True)
    assert shown.count("# Scheme, host and port of the engine.") == 1
    assert shown.count("max_in_flight") == 1


def test_a_policy_is_shown_with_all_its_options() -> None:
    """The options that a policy's table leaves out are in effect too."""
    config = decode('[policies.a]\nkind = "power_of_two"' + MODEL)
    table = tomllib.loads(to_toml(config))
    assert table["policies"] == {"a": {"kind": "power_of_two", "choices": 2}}
    assert to_plain(config)["policies"] == table["policies"]


def test_a_table_within_a_policy_is_inline() -> None:
    """A pipeline's scorers and filters are written as they are read."""
    text = '[policies.p]\nkind = "pipeline"\nscorers = { queue = 2 }\nfilters = ["utilisation"]' + MODEL
    config = decode(text)
    shown = to_toml(config)
    assert "scorers = { queue = 2.0 }" in shown
    assert 'filters = ["utilisation"]' in shown
    assert decode(shown) == config


def test_a_default_that_is_not_available_is_a_comment() -> None:
    """What is shown can be served: to write that default out would be to ask for it."""
    for every_option in (False, True):
        shown = to_toml(decode(MODEL, environ={}), every_option=every_option)
        assert unavailable(decode(shown, environ={})) == ()
    assert "continue_streams = false" in to_toml(
        decode("[retries]\ncontinue_streams = false" + MODEL, environ={})
    )


def test_plain_values() -> None:
    """For JSON, every option is there, None if it is not set."""
    plain = to_plain(decode(MODEL, environ={}))
    assert plain["redis"] is None
    assert plain["models"]["m"]["versions"]["v1"]["replicas"][0]["weight"] == 1.0
    assert "source" not in plain
    assert json.loads(json.dumps(plain)) == plain
