"""Directories as engines load from, made of nothing: models of a hub, and TensorRT-LLM engines."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def change_json(path: Path, *keys: str, value: Any) -> None:
    """Set one member, as deep as `keys` go."""
    members = json.loads(path.read_text())
    table = members
    for key in keys[:-1]:
        table = table[key]
    assert table.get(keys[-1]) != value
    table[keys[-1]] = value
    write_json(path, members)


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A header without weights."""
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
        for name, (dtype, shape) in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_model(directory: Path, random: Random) -> dict[str, str | int]:
    """A model as it is downloaded from a hub; returns what to expect of it."""
    dtype = random.choice(list(DTYPES))
    quantized = random.random() < 0.5
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": dtype,
        "vocab_size": random.randrange(1000, 200_000),
        "max_position_embeddings": random.choice([4096, 8192, 131_072]),
    }
    if quantized:
        config["quantization_config"] = {"quant_method": random.choice(["awq", "gptq", "fp8"])}
    write_json(directory / "config.json", config)
    write_tokenizer_files(directory, random)
    hidden = random.choice([64, 128])
    shapes = {f"model.layers.{n}.weight": (DTYPES[dtype], [hidden, hidden]) for n in range(3)}
    write_safetensors(directory / "model.safetensors", shapes)
    noted = directory / ".cache" / "huggingface" / "download" / "config.json.metadata"
    noted.parent.mkdir(parents=True)
    noted.write_text(f"{COMMIT}\netag\n1.0\n")
    return {
        "dtype": dtype,
        "quantization": config["quantization_config"]["quant_method"] if quantized else "none",
        "vocab_size": config["vocab_size"],
        "max_model_len": config["max_position_embeddings"],
        "revision": COMMIT,
        **digests(directory),
    }


def write_engine(directory: Path, random: Random) -> dict[str, str | int]:
    """A TensorRT-LLM engine with its model's tokenizer beside it; returns what to expect of it."""
    dtype, tp = random.choice(["bfloat16", "float16"]), random.choice([1, 2, 4])
    algo, kv_algo = random.choice([None, "FP8", "W4A16_AWQ"]), random.choice([None, "FP8", "INT8"])
    vocab_size, length = random.randrange(1000, 200_000), random.choice([2048, 8192])
    version = f"1.{random.randrange(9)}.0"
    config = {
        "version": version,
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "dtype": dtype,
            "vocab_size": vocab_size,
            "max_position_embeddings": 131_072,
            "quantization": {"quant_algo": algo, "kv_cache_quant_algo": kv_algo},
            "mapping": {"world_size": tp, "tp_size": tp, "pp_size": 1},
        },
        "build_config": {"max_seq_len": length, "max_batch_size": 64},
    }
    write_json(directory / "config.json", config)
    write_tokenizer_files(directory, random)
    return {
        "engine_version": version,
        "dtype": dtype,
        "quantization": (algo or "none").lower(),
        "kv_cache_dtype": (kv_algo or "auto").lower(),
        "tensor_parallel": tp,
        "vocab_size": vocab_size,
        "max_model_len": length,
        **digests(directory),
    }


def write_tokenizer_files(directory: Path, random: Random) -> None:
    vocab = {f"t{number}": number for number in range(random.randrange(5, 50))}
    write_json(directory / "tokenizer.json", {"version": "1.0", "model": {"type": "BPE", "vocab": vocab}})
    write_json(directory / "tokenizer_config.json", {"bos_token": "<s>", "chat_template": TEMPLATE})


def digests(directory: Path) -> dict[str, str | int]:
    """By plain means, as an operator would: `sha256sum`."""
    return {
        "config_sha256": sha256((directory / "config.json").read_bytes()),
        "tokenizer_sha256": sha256((directory / "tokenizer.json").read_bytes()),
        "chat_template_sha256": sha256(TEMPLATE.encode()),
    }
