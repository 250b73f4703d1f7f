import re
from typing import Any

import msgspec
import pytest

from router.engines.telemetry import TELEMETRY
from tests.support.wire import recorded

SOURCES: dict[str, dict[str, list[str]]] = msgspec.json.decode(recorded("normalised_schema.json"))["sources"]
TEXTS = {
    "vllm": "/metrics",
    "tgi": "/metrics",
    "triton": "/metrics",
    "trtllm_prometheus": "/prometheus/metrics",
}
NAMES = {
    "prefix_hit_ratio_gauge": "prefix_hit_ratio",
    "queue_wait_sum": "queue_wait_seconds_sum",
    "engine_heartbeat": "heartbeat",
}
PLAIN = re.compile(r"([a-z_:]+)(?:\{(\w+)=(\w+)\})?")


def plain_sources() -> list[Any]:
    """Every source of the schema that is one sample and nothing else."""
    rows = []
    for engine, fields in SOURCES.items():
        for field, sources in fields.items():
            for source in sources:
                match = PLAIN.fullmatch(source)
                if engine in TEXTS and match is not None and "_" in source:
                    rows.append(pytest.param(engine, NAMES.get(field, field), match, id=f"{engine}-{source}"))
    return rows


@pytest.mark.parametrize(("engine", "field", "source"), plain_sources())
def test_every_plain_source_of_the_schema_is_read(engine: str, field: str, source: re.Match[str]) -> None:
    """Alone in an exposition, under any labels, it becomes its field; so first names and fallbacks both work."""
    label = f',{source[2]}="{source[3]}"' if source[2] else ""
    text = f'{source[1]}{{model_name="m"{label}}} 0.5\n'.encode()
    load = TELEMETRY[engine.removesuffix("_prometheus")]().load_from(TEXTS[engine], text)
    assert getattr(load, field) == 0.5


def test_the_schema_has_plain_sources() -> None:
    """The test above tests something of every engine."""
    engines = [row.values[0] for row in plain_sources()]
    assert {engine: engines.count(engine) for engine in TEXTS} == {
        "vllm": 16, "tgi": 6, "triton": 4, "trtllm_prometheus": 14,
    }  # fmt: skip


@pytest.mark.parametrize("kind", sorted(TELEMETRY))
def test_every_kind_can_be_built(kind: str) -> None:
    """With a replica's options or without; objects of one kind share nothing that changes."""
    plain, told = TELEMETRY[kind](), TELEMETRY[kind](max_running=8, kv_capacity_tokens=1_000)
    path = told.metrics_paths[-1]
    content = b"[]" if kind == "trtllm" else b""
    assert told.load_from(path, content).max_running_requests == 8
    assert told.load_from(path, content).kv_capacity_tokens == 1_000
    assert plain.load_from(path, content).max_running_requests is None
    assert all(each.startswith("/") for each in (plain.health_path, *plain.metrics_paths))
