"""`deploy/compose.yaml` as values: the services of our image, what they mount and how long they may take."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.deploy.build_context import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Service:
    """`files` are bind mounts and secrets: path in the repository to path in the container.

    `volumes` are where the named volumes are, the only places that can be written to.
    """

    name: str
    image: str
    command: tuple[str, ...]
    healthcheck: tuple[str, ...]
    files: Mapping[Path, str]
    volumes: tuple[str, ...]
    plain: Mapping[str, Any]


def composition() -> dict[str, Any]:
    """The parsed file, its anchors resolved."""
    parsed: dict[str, Any] = read_yaml(DEPLOY / "compose.yaml")
    return parsed


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def services() -> dict[str, Service]:
    whole = composition()
    return {name: _service(name, plain, whole["secrets"]) for name, plain in whole["services"].items()}


def seconds(duration: str) -> float:
    """'1m30s' as a number, in the spelling that Compose, the Dockerfile and Prometheus share."""
    parts = re.findall(r"(\d+)(ms|s|m|h)", duration)
    assert "".join(map("".join, parts)) == duration, duration
    return sum(int(number) * _UNITS_S[unit] for number, unit in parts)


def _service(name: str, plain: Mapping[str, Any], secrets: Mapping[str, Any]) -> Service:
    test = plain.get("healthcheck", {}).get("test", ["CMD"])
    assert test[0] == "CMD", "only the exec form of a health check is read here"
    return Service(
        name=name,
        image=plain["image"],
        command=tuple(plain.get("command", ())),
        healthcheck=tuple(test[1:]),
        files=dict([*_binds(plain), *_secrets(plain, secrets)]),
        volumes=tuple(target for source, target in _mounts(plain) if source[0] != "."),
        plain=plain,
    )


def _binds(plain: Mapping[str, Any]) -> list[tuple[Path, str]]:
    return [((DEPLOY / source).resolve(), target) for source, target in _mounts(plain) if source[0] == "."]


def _mounts(plain: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Source and target of each volume, in the short form."""
    parts = [entry.split(":") for entry in plain.get("volumes", ())]
    return [(source, target) for source, target, *_ in parts]


def _secrets(plain: Mapping[str, Any], secrets: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The short form is mounted by its name in /run/secrets."""
    entries = [
        {"source": entry, "target": f"/run/secrets/{entry}"} if isinstance(entry, str) else entry
        for entry in plain.get("secrets", ())
    ]
    return [((DEPLOY / secrets[entry["source"]]["file"]).resolve(), entry["target"]) for entry in entries]
