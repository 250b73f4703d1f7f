"""What the files say that a replica was started from: a Hugging Face model, or a TensorRT-LLM engine.

Read are the small files, and of safetensors the headers; weights are never loaded.
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

import msgspec

from router.engines.fingerprint import Fingerprint, count_of, dtype_of, quantization_of, text_of

MAX_HEADER_BYTES: Final = 100 << 20
"""What the safetensors library accepts."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


class ArtefactUnreadable(Exception):
    """The files are not there, or not what they should be; the message names the file."""


class Artefacts:
    """Directories that were read, each read again only when its files have changed."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[_Stamp, Fingerprint]] = {}

    async def of(self, directory: str) -> Fingerprint:
        """Raises `ArtefactUnreadable`."""
        # Large files are hashed, and the directory may be on a network.
        return await asyncio.to_thread(self._of, directory)

    def _of(self, directory: str) -> Fingerprint:
        path = Path(directory)
        stamp = _stamp(path)
        known = self._read.get(directory)
        if known is None or known[0] != stamp:
            known = self._read[directory] = stamp, read_artefact(path)
        return known[1]


_Stamp = tuple[tuple[str, int, int], ...]


def _stamp(directory: Path) -> _Stamp:
    """Names, sizes and times of change of the files in it. Raises `ArtefactUnreadable`."""
    try:
        stats = ((path.name, path.stat()) for path in sorted(directory.iterdir()))
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    except OSError as error:
        raise ArtefactUnreadable(f"{error.filename or directory}: {error.strerror or error}") from None


def read_artefact(directory: Path) -> Fingerprint:
    """All that the files say. Blocks while it reads. Raises `ArtefactUnreadable`."""
    try:
        content = (directory / "config.json").read_bytes()
        config = _members(directory / "config.json", content)
        made = _engine(config) if "pretrained_config" in config else _model(directory, config)
        return Fingerprint(
            revision=_revision(directory),
            config_sha256=_sha256(content),
            tokenizer_sha256=_digest_of(directory / "tokenizer.json"),
            chat_template_sha256=_template_digest(directory),
        ).filled(made)
    except OSError as error:
        raise ArtefactUnreadable(f"{error.filename or directory}: {error.strerror or error}") from None


def _engine(config: Mapping[str, Any]) -> Fingerprint:
    """An engine's directory: how the checkpoint was made, and how the engine was built from it.

    tensorrt_llm/builder.py `EngineConfig`: `version`, `pretrained_config`, `build_config`.
    """
    made, built = _table(config, "pretrained_config"), _table(config, "build_config")
    quantization = _table(made, "quantization")
    return Fingerprint(
        engine_version=text_of(config.get("version")),
        dtype=dtype_of(made.get("dtype")),
        quantization=quantization_of(quantization.get("quant_algo")) or "none",
        kv_cache_dtype=quantization_of(quantization.get("kv_cache_quant_algo")) or "auto",
        tensor_parallel=count_of(_table(made, "mapping").get("tp_size")),
        max_model_len=count_of(built.get("max_seq_len")),
        vocab_size=count_of(made.get("vocab_size")),
    )


def _model(directory: Path, config: Mapping[str, Any]) -> Fingerprint:
    """A model's directory; one of several modes keeps what is said of its text in `text_config`."""
    config = {**_table(config, "text_config"), **config}
    dtype, weights_sha256 = _weights(directory)
    method = _table(config, "quantization_config").get("quant_method")
    made = _optimised(directory / "hf_quant_config.json")
    return made.filled(
        Fingerprint(
            dtype=dtype or dtype_of(config.get("dtype") or config.get("torch_dtype")),
            quantization=quantization_of(method) or "none",
            max_model_len=count_of(config.get("max_position_embeddings")),
            vocab_size=count_of(config.get("vocab_size")),
            weights_sha256=weights_sha256,
        )
    )


def _optimised(path: Path) -> Fingerprint:
    """What TensorRT Model Optimizer writes beside a model that it has quantized."""
    if not path.is_file():
        return Fingerprint()
    said = _table(_members(path, path.read_bytes()), "quantization")
    return Fingerprint(
        quantization=quantization_of(said.get("quant_algo")),
        kv_cache_dtype=quantization_of(said.get("kv_cache_quant_algo")),
    )


# ---- digests ----


def _digest_of(path: Path) -> str | None:
    return _sha256(path.read_bytes()) if path.is_file() else None


def _template_digest(directory: Path) -> str | None:
    """Of the template in a file of its own, else of the one in `tokenizer_config.json`."""
    own, config = directory / "chat_template.jinja", directory / "tokenizer_config.json"
    if own.is_file() or not config.is_file():
        return _digest_of(own)
    template = _members(config, config.read_bytes()).get("chat_template")
    if template is None:
        return None
    return _sha256(template.encode() if isinstance(template, str) else _canonical(template))


def _canonical(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---- the weights' headers ----


def _weights(directory: Path) -> tuple[str | None, str | None]:
    """The type of most weights, and a digest of every tensor's name, type and shape; none, none without any.

    Packed integers are no data type of weights: `config.json` knows that.
    """
    tensors = {
        name: tensor for path in sorted(directory.glob("*.safetensors")) for name, tensor in _tensors(path)
    }
    if not tensors:
        return None, None
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.dtype] += prod(tensor.shape)
    ((most, _),) = sizes.most_common(1)
    listed = [(name, tensor.dtype, tensor.shape) for name, tensor in sorted(tensors.items())]
    return dtype_of(most) if most.startswith(("F", "BF")) else None, _sha256(_canonical(listed))


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]


def _tensors(path: Path) -> Iterator[tuple[str, _Tensor]]:
    """Eight bytes of length, then JSON by tensor name (the safetensors format)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= MAX_HEADER_BYTES:
            raise ArtefactUnreadable(f"{path}: has no safetensors header")
        header = _members(path, file.read(length))
    header.pop("__metadata__", None)
    try:
        yield from msgspec.convert(header, dict[str, _Tensor]).items()
    except msgspec.ValidationError as error:
        raise ArtefactUnreadable(f"{path}: {error}") from None


# ---- reading ----


def _revision(directory: Path) -> str | None:
    """The commit that it was downloaded at: the snapshot's own name, or what the hub's client noted."""
    if directory.parent.name == "snapshots" and _COMMIT.fullmatch(directory.name):
        return directory.name
    noted = directory / ".cache" / "huggingface" / "download" / "config.json.metadata"
    if not noted.is_file():
        return None
    first = noted.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    return first if _COMMIT.fullmatch(first) else None


def _members(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtefactUnreadable(f"{path}: is no JSON object: {error}") from None


def _table(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = members.get(name)
    return value if isinstance(value, dict) else {}
