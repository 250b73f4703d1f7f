"""What the files of a replica say: honest ones raise no alarm, and each kind of change is told by its field."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.config.model import ExpectConfig
from router.engines.fingerprint import Fingerprint, Subject
from router.fleet.artefact import Artefacts, ArtefactUnreadable, read_artefact
from router.fleet.expectation import FIELDS, mismatches
from tests.support.artefacts import (
    COMMIT,
    DTYPES,
    TEMPLATE,
    change_json,
    sha256,
    write_engine,
    write_json,
    write_model,
    write_safetensors,
)

MANIFESTS = 50
KINDS: dict[str, Callable[[Path, Random], dict[str, str | int]]] = {
    "model": write_model,
    "engine": write_engine,
}


def differing(directory: Path, expected: dict[str, Any]) -> list[str]:
    """The fields that a silent replica with these files does not meet."""
    expect = ExpectConfig(artefact=str(directory), **expected)
    found = mismatches(Subject("m"), expect, Fingerprint(), read_artefact(directory))
    return [each.field for each in found]


@pytest.mark.parametrize("kind", KINDS)
def test_honest_files_raise_no_alarm(kind: str, tmp_path: Path) -> None:
    """Two hundred manifests of all sorts in all, each with every field that its files can say."""
    for number in range(100):
        directory = tmp_path / str(number)
        expected = KINDS[kind](directory, Random(number))
        known = read_artefact(directory).known()
        assert known == expected | ({"weights_sha256": known["weights_sha256"]} if kind == "model" else {})
        assert differing(directory, known) == []


def _config(*keys: str, value: Any) -> Callable[[Path], None]:
    return lambda directory: change_json(directory / "config.json", *keys, value=value)


def _tokenizer(directory: Path) -> None:
    (directory / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes() + b"\n")


def _template(directory: Path) -> None:
    change_json(directory / "tokenizer_config.json", "chat_template", value=TEMPLATE + "!")


def _own_template(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(TEMPLATE + "!")


def _types(directory: Path) -> None:
    shapes = {f"model.layers.{n}.weight": ("F8_E4M3", [64, 64]) for n in range(3)}
    write_safetensors(directory / "model.safetensors", shapes)


def _shapes(directory: Path) -> None:
    dtype = DTYPES[json.loads((directory / "config.json").read_text())["torch_dtype"]]
    shapes = {f"model.layers.{n}.weight": (dtype, [99, 99]) for n in range(3)}
    write_safetensors(directory / "model.safetensors", shapes)


def _revision(directory: Path) -> None:
    noted = directory / ".cache" / "huggingface" / "download" / "config.json.metadata"
    noted.write_text("f" * 40)


MODEL_CHANGES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "vocabulary": (_config("vocab_size", value=7), {"vocab_size", "config_sha256"}),
    "length": (_config("max_position_embeddings", value=1), {"max_model_len", "config_sha256"}),
    "quantization": (
        _config("quantization_config", value={"quant_method": "bitsandbytes"}),
        {"quantization", "config_sha256"},
    ),
    "another architecture": (_config("architectures", value=["Other"]), {"config_sha256"}),
    "types of the weights": (_types, {"dtype", "weights_sha256"}),
    "shapes of the weights": (_shapes, {"weights_sha256"}),
    "tokenizer": (_tokenizer, {"tokenizer_sha256"}),
    "chat template": (_template, {"chat_template_sha256"}),
    "chat template in a file": (_own_template, {"chat_template_sha256"}),
    "commit": (_revision, {"revision"}),
}
_MADE, _BUILT = "pretrained_config", "build_config"
ENGINE_CHANGES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "type": (_config(_MADE, "dtype", value="float32"), {"dtype", "config_sha256"}),
    "quantization": (
        _config(_MADE, "quantization", "quant_algo", value="W8A16"),
        {"quantization", "config_sha256"},
    ),
    "cache": (
        _config(_MADE, "quantization", "kv_cache_quant_algo", value="NVFP4"),
        {"kv_cache_dtype", "config_sha256"},
    ),
    "parallelism": (_config(_MADE, "mapping", "tp_size", value=8), {"tensor_parallel", "config_sha256"}),
    "vocabulary": (_config(_MADE, "vocab_size", value=7), {"vocab_size", "config_sha256"}),
    "length": (_config(_BUILT, "max_seq_len", value=1), {"max_model_len", "config_sha256"}),
    "builder": (_config("version", value="0.9.0"), {"engine_version", "config_sha256"}),
    "batch": (_config(_BUILT, "max_batch_size", value=3), {"config_sha256"}),
    "tokenizer": (_tokenizer, {"tokenizer_sha256"}),
    "chat template": (_template, {"chat_template_sha256"}),
}


def cases() -> list[Any]:
    of_models = [("model", *case) for case in MODEL_CHANGES.items()]
    of_engines = [("engine", *case) for case in ENGINE_CHANGES.items()]
    return [
        pytest.param(kind, change, fields, id=f"{kind}, {name}")
        for kind, name, (change, fields) in of_models + of_engines
    ]


@pytest.mark.parametrize(("kind", "change", "fields"), cases())
def test_a_change_is_found_in_every_manifest(
    kind: str, change: Callable[[Path], None], fields: set[str], tmp_path: Path
) -> None:
    """By the field that changed, and by the digest of the file that it is in."""
    for number in range(MANIFESTS):
        directory = tmp_path / str(number)
        KINDS[kind](directory, Random(number))
        expected = read_artefact(directory).known()
        change(directory)
        assert set(differing(directory, expected)) == fields


def test_every_field_is_changed_by_some_case() -> None:
    """But for what only a running engine says."""
    changed = set().union(*(fields for _, fields in (*MODEL_CHANGES.values(), *ENGINE_CHANGES.values())))
    assert changed == set(FIELDS) - {"model"}


def test_a_snapshot_is_named_by_its_commit(tmp_path: Path) -> None:
    directory = tmp_path / "snapshots" / COMMIT
    write_json(directory / "config.json", {"dtype": "bfloat16"})
    assert read_artefact(directory).revision == COMMIT


def test_models_of_several_modes_and_optimised_ones(tmp_path: Path) -> None:
    """What is said of the text counts, and what an optimiser wrote beside the model."""
    write_json(tmp_path / "config.json", {"text_config": {"vocab_size": 9, "torch_dtype": "float16"}})
    write_json(
        tmp_path / "hf_quant_config.json",
        {"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}},
    )
    said = read_artefact(tmp_path)
    assert (said.vocab_size, said.dtype) == (9, "float16")
    assert (said.quantization, said.kv_cache_dtype) == ("nvfp4", "fp8")


def test_packed_weights_have_the_type_of_their_configuration(tmp_path: Path) -> None:
    """Most numbers of a model in four bits are integers."""
    write_json(tmp_path / "config.json", {"torch_dtype": "float16"})
    write_safetensors(tmp_path / "a.safetensors", {"q": ("I32", [100, 100]), "s": ("F16", [10])})
    assert read_artefact(tmp_path).dtype == "float16"


def test_weights_in_several_files_are_one_list(tmp_path: Path) -> None:
    """However they are spread."""
    digests = []
    for files in ([["a", "b"]], [["a"], ["b"]]):
        directory = tmp_path / str(len(files))
        write_json(directory / "config.json", {})
        for number, names in enumerate(files):
            write_safetensors(directory / f"{number}.safetensors", {name: ("BF16", [2]) for name in names})
        digests.append(read_artefact(directory).weights_sha256)
    assert digests[0] == digests[1] is not None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b""),
        ("config.json", b"[]"),
        ("config.json", b"\xff"),
        ("config.json", b"[" * 100_000),
        ("tokenizer_config.json", b"{"),
        ("model.safetensors", b""),
        ("model.safetensors", (1 << 40).to_bytes(8, "little") + b"{}"),
        ("model.safetensors", (9).to_bytes(8, "little") + b'{"a": 1}'),
        ("hf_quant_config.json", b"1"),
    ],
)
def test_broken_files_are_named(name: str, content: bytes, tmp_path: Path) -> None:
    write_model(tmp_path, Random(1))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtefactUnreadable, match=name.replace(".", r"\.")):
        read_artefact(tmp_path)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactUnreadable, match=r"gone.*No such file"):
        read_artefact(tmp_path / "gone")


def test_they_are_read_again_when_they_have_changed(tmp_path: Path) -> None:
    """And not otherwise: a tokenizer is large."""

    async def run() -> None:
        artefacts = Artefacts()
        write_model(tmp_path, Random(1))
        first = await artefacts.of(str(tmp_path))
        assert await artefacts.of(str(tmp_path)) is first
        _tokenizer(tmp_path)
        again = await artefacts.of(str(tmp_path))
        assert again.tokenizer_sha256 == sha256((tmp_path / "tokenizer.json").read_bytes())
        (tmp_path / "config.json").unlink()
        with pytest.raises(ArtefactUnreadable, match=r"config\.json"):
            await artefacts.of(str(tmp_path))

    asyncio.run(run())
