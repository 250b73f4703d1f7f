"""What engines say of themselves, as each says it, and what is made of anything else: nothing."""

import json
from typing import Any

import pytest

from router.engines.fingerprint import Fingerprint, Subject
from router.engines.fingerprints import QUESTIONS

VLLM_CARD = {
    "id": "demo-8b",
    "object": "model",
    "created": 1787000000,
    "owned_by": "vllm",
    "root": "org/demo-8b",
    "parent": None,
    "max_model_len": 8192,
    "permission": [],
}
LORA_CARD = VLLM_CARD | {
    "id": "support",
    "root": "/loras/support",
    "parent": "demo-8b",
    "max_model_len": None,
}
VLLM_CONFIG = (
    "model='org/demo-8b', speculative_config=None, tokenizer='org/demo-8b', skip_tokenizer_init=False, "
    "tokenizer_mode=auto, revision=abc123, tokenizer_revision=def, trust_remote_code=False, "
    "dtype=torch.bfloat16, max_seq_len=8192, download_dir=None, load_format=auto, tensor_parallel_size=2, "
    "pipeline_parallel_size=1, quantization=fp8, enforce_eager=False, kv_cache_dtype=auto, seed=0"
)
VLLM_METRICS = (
    'vllm:num_requests_running{engine="0"} 0\n'
    'vllm:cache_config_info{block_size="16",cache_dtype="fp8_e5m2",engine="0"} 1\n'
)
TGI_INFO = {
    "model_id": "org/demo-8b",
    "model_sha": "0e9e39f",
    "model_pipeline_tag": "text-generation",
    "max_concurrent_requests": 128,
    "max_input_tokens": 4095,
    "max_total_tokens": 4096,
    "router": "text-generation-router",
    "version": "3.3.7",
    "sha": "8f326c9",
    "docker_label": "sha-8f326c9",
}
TRTLLM_MODELS = {"object": "list", "data": [{"id": "demo-8b", "object": "model", "owned_by": "tensorrt_llm"}]}


def said(engine: str, subject: Subject, path: str, content: Any) -> Fingerprint:
    body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    [question] = [each for each in QUESTIONS[engine](subject) if each.path == path]
    fingerprint = question.read(body)
    assert fingerprint.known().keys() <= question.tells
    return fingerprint


BASE = Subject("demo-8b")
LORA = Subject("support", is_adapter=True)

CASES: dict[str, tuple[str, Subject, str, Any, Fingerprint]] = {
    "vllm": (
        "vllm",
        BASE,
        "/v1/models",
        {"data": [VLLM_CARD]},
        Fingerprint(names=("demo-8b",), model="org/demo-8b", max_model_len=8192),
    ),
    "vllm, an adapter": (
        "vllm",
        LORA,
        "/v1/models",
        {"data": [VLLM_CARD, LORA_CARD]},
        Fingerprint(names=("demo-8b", "support"), model="org/demo-8b", max_model_len=8192),
    ),
    "vllm, another model": (
        "vllm",
        Subject("else"),
        "/v1/models",
        {"data": [VLLM_CARD]},
        Fingerprint(names=("demo-8b",)),
    ),
    "vllm, its version": (
        "vllm",
        BASE,
        "/version",
        {"version": "0.27.0"},
        Fingerprint(engine_version="0.27.0"),
    ),
    "vllm, its settings": (
        "vllm",
        BASE,
        "/server_info",
        {"vllm_config": VLLM_CONFIG},
        Fingerprint(dtype="bfloat16", quantization="fp8", tensor_parallel=2, revision="abc123"),
    ),
    "vllm, not quantized": (
        "vllm",
        BASE,
        "/server_info",
        {"vllm_config": "dtype=torch.float16, quantization=None, revision=None"},
        Fingerprint(dtype="float16", quantization="none"),
    ),
    "vllm, its cache": ("vllm", BASE, "/metrics", VLLM_METRICS, Fingerprint(kv_cache_dtype="fp8_e5m2")),
    "tgi": (
        "tgi",
        Subject("org/demo-8b"),
        "/info",
        TGI_INFO,
        Fingerprint(
            names=("org/demo-8b",),
            model="org/demo-8b",
            revision="0e9e39f",
            engine_version="3.3.7",
            max_model_len=4096,
        ),
    ),
    "tgi, the base by its short name": (
        "tgi",
        Subject("tgi"),
        "/info",
        {"model_id": "/data/x", "model_dtype": "torch.float16"},
        Fingerprint(names=("/data/x", "tgi"), model="/data/x", dtype="float16"),
    ),
    "tgi, an adapter, which it does not list": (
        "tgi",
        LORA,
        "/info",
        {"model_id": "x", "model_sha": None},
        Fingerprint(model="x"),
    ),
    "trtllm": (
        "trtllm",
        BASE,
        "/v1/models",
        TRTLLM_MODELS,
        Fingerprint(names=("demo-8b",), model="demo-8b"),
    ),
    "trtllm, a directory": (
        "trtllm",
        Subject("/engines/demo-8b"),
        "/v1/models",
        TRTLLM_MODELS,
        Fingerprint(names=("demo-8b", "/engines/demo-8b"), model="demo-8b"),
    ),
    "trtllm, an adapter": ("trtllm", LORA, "/v1/models", TRTLLM_MODELS, Fingerprint(model="demo-8b")),
    "trtllm, its version": (
        "trtllm",
        BASE,
        "/version",
        {"version": "1.1.0"},
        Fingerprint(engine_version="1.1.0"),
    ),
    "triton": (
        "triton",
        Subject("ensemble"),
        "/v2/models/ensemble/config",
        {"name": "ensemble", "parameters": {"gpt_model_path": {"string_value": "/engines/8b"}}},
        Fingerprint(names=("ensemble",), model="/engines/8b"),
    ),
    "triton, a template that nobody filled in": (
        "triton",
        Subject("ensemble"),
        "/v2/models/ensemble/config",
        {"name": "ensemble", "parameters": {"engine_dir": {"string_value": "${engine_dir}"}}},
        Fingerprint(names=("ensemble",)),
    ),
    "triton, its version": (
        "triton",
        Subject("ensemble"),
        "/v2",
        {"name": "triton", "version": "2.73.0", "extensions": []},
        Fingerprint(engine_version="2.73.0"),
    ),
}


@pytest.mark.parametrize(("engine", "subject", "path", "content", "expected"), CASES.values(), ids=CASES)
def test_what_is_said(engine: str, subject: Subject, path: str, content: Any, expected: Fingerprint) -> None:
    assert said(engine, subject, path, content) == expected


JUNK = (b"", b"<html>", b"null", b"[]", b"\xff\xfe", b"1e999", b"[" * 100_000)


@pytest.mark.parametrize("junk", [*JUNK, b'{"data": 1}', b'{"data": [1, {"id": 2}]}'])
@pytest.mark.parametrize("engine", QUESTIONS)
def test_what_is_not_its_own_says_nothing(engine: str, junk: bytes) -> None:
    """Each reader refuses it, or knows nothing after it: at most that no name is listed."""
    for question in QUESTIONS[engine](BASE):
        try:
            known = question.read(junk).known()
        except ValueError:
            continue
        assert known in ({}, {"names": ()})


def test_a_triton_without_the_model() -> None:
    """It says so with 404, before 2.40 with 400; another refusal says nothing."""
    question, _ = QUESTIONS["triton"](Subject("a b"))
    assert question.path == "/v2/models/a%20b/config"
    assert question.refused is not None
    unknown = b'{"error":"Request for unknown model: \'a b\' is not found"}'
    assert question.refused(404, unknown) == question.refused(400, unknown) == Fingerprint(names=())
    for status, body in ((404, b""), (404, b'{"error": "Not Found"}'), (405, unknown)):
        with pytest.raises(ValueError, match=r"answered|JSON"):
            question.refused(status, body)
