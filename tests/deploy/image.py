"""Builds an image as a Dockerfile says, for real and without a daemon: every RUN runs, in a root per stage."""

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from tests.deploy.build_context import REPOSITORY, context_files
from tests.deploy.dockerfile import Instruction, Stage, filled_in
from tests.deploy.enclosure import BASE_PATH, Enclosure, copy_root, index_access

_COMMANDS = {"ENTRYPOINT": "entrypoint", "CMD": "command", "HEALTHCHECK": "healthcheck"}


@dataclass(frozen=True, slots=True)
class Image:
    """A root, and what its Dockerfile says of the processes in it."""

    root: Path
    environ: Mapping[str, str]
    folder: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()


def save_images(images: Mapping[str, Image], path: Path) -> None:
    """For another process; by the names that compose.yaml knows them by."""
    path.write_bytes(msgspec.json.encode(images, enc_hook=str))


def load_images(path: Path) -> dict[str, Image]:
    return msgspec.json.decode(
        path.read_bytes(), type=dict[str, Image], dec_hook=lambda kind, text: kind(text)
    )


def build(stages: tuple[Stage, ...], base: Path, into: Path) -> Image:
    """All stages in order, each in a copy of `base`; returns the last."""
    made: dict[str, Path] = {}
    for number, stage in enumerate(stages):
        root = into / (stage.name or str(number))
        copy_root(base, root)
        image = Image(root, {"PATH": BASE_PATH})
        for each in stage.instructions:
            image = _done(image, each, made)
        made[stage.name] = root
    return image


def _done(image: Image, each: Instruction, made: Mapping[str, Path]) -> Image:
    """The image after one more instruction. EXPOSE and STOPSIGNAL are for daemons."""
    match each.keyword:
        case "RUN":
            _run(image, each)
        case "COPY":
            _copy(image, each, made)
        case "WORKDIR":
            (image.root / each.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            return replace(image, folder=each.text)
        case "ENV":
            pairs = (word.partition("=") for word in shlex.split(filled_in(each.text, image.environ)))
            return replace(image, environ={**image.environ, **{name: value for name, _, value in pairs}})
        case "USER":
            return replace(image, user=each.text)
        case "ENTRYPOINT" | "CMD" | "HEALTHCHECK" as keyword:
            changed: dict[str, Any] = {_COMMANDS[keyword]: tuple(json.loads(each.text.removeprefix("CMD ")))}
            return replace(image, **changed)
    return image


def _run(image: Image, each: Instruction) -> None:
    """Only `pip download` reaches the package index; whatever else asks for anything fails."""
    assert image.user == "0:0", "a RUN after USER is not proven here"
    asks = each.text.startswith("pip download ")
    access, binds = index_access() if asks else ({}, {})
    inside = Enclosure(image.root, {**access, **image.environ}, image.folder, binds, network=asks)
    inside.run("/bin/sh", "-c", each.text)


def _copy(image: Image, each: Instruction, made: Mapping[str, Path]) -> None:
    *sources, target = shlex.split(each.text)
    goal = image.root / str(Path(image.folder) / target).lstrip("/")
    if "from" in each.flags:
        (source,) = sources
        shutil.copytree(
            made[each.flags["from"]] / source.lstrip("/"), goal, symlinks=True, dirs_exist_ok=True
        )
        return
    files = list(context_files())
    for source in sources:
        found = [path for path in files if path == Path(source) or Path(source) in path.parents]
        assert found, f"{source} is not in the build context"
        for path in found:
            inner = path.relative_to(source) if path != Path(source) else Path(path.name)
            (goal / inner).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / path, goal / inner)
