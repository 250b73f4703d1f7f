"""The model is the reference: it tells of every option what it does, and its defaults obey its own checks."""

from dataclasses import MISSING, FrozenInstanceError
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from policies.routing import POLICIES
from router.config import option
from router.config.model import DEFAULT_POLICY, Config, ReplicaConfig
from tests.support.configs import sections, single_options


def test_every_option_has_advice() -> None:
    """One sentence, short enough for a comment line."""
    for section, names in sections():
        for name in names:
            advice = option.advice(option.options(section)[name])
            assert advice.endswith(".") and 8 < len(advice) <= 108, f"{section.__name__}.{name}"


def test_advice_names_every_choice() -> None:
    """Where only some words are allowed, the advice says which."""
    for section, name, declared in single_options():
        kind = option.without_none(get_type_hints(section)[name])
        for choice in get_args(kind) if get_origin(kind) is Literal else ():
            assert f"'{choice}'" in option.advice(declared), f"{section.__name__}.{name}: {choice}"


def test_every_option_can_be_shown() -> None:
    """What has no value of its own by default has an example."""
    for section, name, declared in single_options():
        default = option.default(declared)
        if default is MISSING or default is None:
            assert declared.metadata["example"] is not None, f"{section.__name__}.{name}"


def test_defaults_pass_their_checks() -> None:
    """A default would be accepted if it were written."""
    checked = 0
    for section, name, declared in single_options():
        default = option.default(declared)
        if default not in (MISSING, None):
            for check in option.checks(declared):
                checked += 1
                assert check(default) is None, f"{section.__name__}.{name}"
    assert checked > 30


def test_durations_name_their_unit() -> None:
    """Times end in seconds or milliseconds."""
    words = ("timeout", "interval", "idle", "settle", "alive", "stall", "burst", "max_step")
    timed = [(section, name) for section, name, _ in single_options() if any(word in name for word in words)]
    assert len(timed) > 12
    for section, name in timed:
        assert name.endswith(("_s", "_ms")), f"{section.__name__}.{name}"


def test_a_configuration_cannot_be_changed() -> None:
    """Sections are frozen, have no room for more, and take no positional values."""
    with pytest.raises(FrozenInstanceError):
        Config().server.port = 1  # type: ignore[misc]
    for section, _ in sections():
        assert "__dict__" not in dir(section), section.__name__
    with pytest.raises(TypeError):
        ReplicaConfig("http://a:1", "vllm")  # type: ignore[misc]


def test_policies() -> None:
    """The default is one of them."""
    assert DEFAULT_POLICY in POLICIES


def test_replica_id() -> None:
    """What is written, else host and port."""
    assert ReplicaConfig(url="http://10.0.0.1:8000", engine="vllm").replica_id == "10.0.0.1:8000"
    assert ReplicaConfig(url="http://10.0.0.1:8000", engine="vllm", id="gpu-7").replica_id == "gpu-7"
