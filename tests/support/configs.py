"""Configuration texts for tests, and what is wrong with one."""

from collections.abc import Iterator
from dataclasses import Field, is_dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args, get_type_hints

import pytest

from router.config import option
from router.config.decode import ConfigError, decode
from router.config.model import Config, PolicyConfig

MODEL = """
[models.m]
stable = "v1"
[models.m.versions.v1]
served_name = "org/m"
replicas = [ { url = "http://10.0.0.1:8000", engine = "vllm" } ]
"""
"""A valid model, to stand after what a test is about."""

EVERYTHING = """
[server]
port = 9000
[admin]
token = "env:TOKEN"
[redis]
url = "redis://user:passw0rd@redis.local:6379/1?password=passw0rd"
[models."org/m"]
stable = "v1"
aliases = ["a", "b"]
policy = "mine"
[models."org/m".versions.v1]
served_name = "org/m"
adapter = "support-lora"
[[models."org/m".versions.v1.replicas]]
url = "http://10.0.0.1:8000"
engine = "triton"
api_key = "inl1ne-k3y"
weight = 0.5
chat_template = \"\"\"{{ "a\\\\\\"b" }}
{%- x %}\\u007f\"\"\"
[[models."org/m".versions.v1.replicas]]
url = "http://10.0.0.2:8000"
engine = "tgi"
id = "gpu-7"
[models."org/m".versions.v2]
served_name = "org/m"
discover = { kind = "dns", host = "vllm.ml.svc", port = 8000, engine = "vllm" }
expect = { dtype = "float8" }
[models."org/m".split]
weights = { v1 = 95, v2 = 5 }
rules = [ { header = "x-beta", equals = "\\"1\\"", version = "v2" } ]
[models."org/m".shadow]
version = "v2"
[models."org/m".canary]
steps = [10, 100]
margins = { error = 0.5 }
[policies.mine]
kind = "power_of_two"
choices = 4
[policies.stages]
kind = "pipeline"
filters = ["utilisation"]
scorers = { prefix = 3.0, queue = 1.0 }
[[keys]]
id = "k"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
tenant = "t"
models = ["org/m"]
expires = 2030-01-01T00:00:00Z
[[limits]]
name = "l"
per = ["tenant"]
match = { tenant = "t" }
tokens_per_minute = 5
"""
"""Every section there is, with secrets in every form; `TOKEN` must be in the environment."""


def mistakes_in(text: str, directory: Path | None = None) -> list[str]:
    """What `decode` says about `text`, called `t.toml`: one string a mistake."""
    with pytest.raises(ConfigError) as raised:
        decode(dedent(text), "t.toml", environ={"EMPTY": "", "SET": "s3cret"}, directory=directory)
    assert str(raised.value) == "\n".join(map(str, raised.value.mistakes))
    return [str(mistake) for mistake in raised.value.mistakes]


def sections(cls: Any = Config) -> Iterator[tuple[Any, dict[str, bool]]]:
    """Every class of options that a file may hold, with its options: whether each holds sections in turn.

    Policies are left out: their options are not the model's.
    """
    kinds = get_type_hints(cls)
    inner = {name: section_in(kinds[name]) for name in option.options(cls)}
    yield cls, {name: kind is not None for name, kind in inner.items()}
    for kind in inner.values():
        if kind not in (None, PolicyConfig):
            yield from sections(kind)


def single_options() -> Iterator[tuple[Any, str, Field[Any]]]:
    """Class, name and declaration of every option that is one value."""
    for cls, names in sections():
        for name, nested in names.items():
            if not nested:
                yield cls, name, option.options(cls)[name]


def section_in(kind: Any) -> Any:
    """The section in `S`, `S | None`, `tuple[S, ...]` or `Mapping[str, S]`; None if there is none."""
    return next((each for each in (kind, *get_args(kind)) if is_dataclass(each)), None)
