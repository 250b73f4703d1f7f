"""Triton's bytes against the golden files: same words and numbers give the same bytes."""

import json
from pathlib import Path

import msgspec
import pytest

from loadtest.engine import triton_wire as wire
from loadtest.engine.stats import Stats
from loadtest.engine.triton_metrics_wire import Reading, scrape
from loadtest.engine.triton_request_wire import INPUTS, OUTPUTS, Invalid, decode

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "triton"


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def llmapi(text: str, **outputs: str) -> bytes:
    return wire.answer("tensorrt_llm", {"text_output": text, **outputs})


def test_cumulative_stream() -> None:
    """The llmapi layout repeats the text so far."""
    texts = ("Hello", "Hello there", "Hello there")
    assert b"".join(wire.event(llmapi(text)) for text in texts) == fixture(
        "generate_stream_llmapi_cumulative.sse"
    )


def test_delta_stream() -> None:
    """The ensemble layout sends deltas among its other tensors, keys in alphabetical order."""
    texts = ("Hello", " there", "")
    events = (
        wire.event(wire.answer("ensemble", {**wire.ENSEMBLE_EXTRAS, "text_output": text})) for text in texts
    )
    assert b"".join(events) == fixture("generate_stream_ensemble_delta.sse")


def test_error_inside_a_stream() -> None:
    """An error is one more event, and the last."""
    stream = wire.event(llmapi("Hello")) + wire.event(wire.error("Error generating request: ..."))
    assert stream == fixture("generate_stream_midstream_error.sse")


def test_whole_answer() -> None:
    """The same object, without framing."""
    assert llmapi("Hello there", finish_reason="stop") == fixture("generate_full.json")


def test_the_id_is_returned_when_given() -> None:
    """It sorts before everything else here."""
    assert wire.answer("m", {"text_output": ""}, "r-1").startswith(b'{"id":"r-1","model_name":"m"')


def test_errors() -> None:
    """The golden messages."""
    known = {entry["case"]: entry.get("body") for entry in json.loads(fixture("errors.json"))}
    assert json.loads(wire.error(wire.unknown_model("nope"))) == known["unknown model"]
    assert json.loads(wire.error(wire.QUEUE_FULL)) == known["model not ready / queue full"]
    assert json.loads(wire.error(wire.NOT_ONE_RESPONSE)) == known["several responses on /generate"]


def test_metrics() -> None:
    """Counters without `_total`, microseconds, one label per kind of gauge."""
    stats = Stats(
        running=7,
        waiting=2,
        running_max_tokens=0,
        max_num_seqs=64,
        blocks_total=8192,
        blocks_used=3072,
        block_size=32,
        blocks_reused=0,
        blocks_missed=0,
        blocks_allocated=0,
        prefix_query_tokens=0,
        prefix_hit_tokens=0,
        prompt_tokens=0,
        computed_prompt_tokens=0,
        generation_tokens=0,
        preemptions=0,
        steps=8841,
        finished={},
        busy_s=0.0,
    )
    reading = Reading(
        model="tensorrt_llm",
        success=851,
        failures={},
        pending=0,
        request_duration_us=7,
        queue_duration_us=48211,
        gpu_utilisation=0.87,
        stats=stats,
        context_requests=1,
        context_tokens=512,
        generation_requests=6,
        epoch_s=1787000000,
    )
    lines = scrape(reading).decode().splitlines(keepends=True)
    beyond = "nv_inference_request_duration_us"
    assert "".join(line for line in lines if beyond not in line).encode() == fixture("metrics.prom")
    assert f'{beyond}{{model="tensorrt_llm",version="1"}} 7\n' in lines


def test_every_layout_describes_itself() -> None:
    """Metadata has every tensor; the configuration says which inputs are optional."""
    metadata = wire.metadata("ensemble", "ensemble", INPUTS["ensemble"], OUTPUTS["ensemble"])
    assert {tensor.name for tensor in metadata.inputs} >= {"text_input", "max_tokens", "stop_words"}
    config = wire.config("tensorrt_llm", "llmapi", 64, INPUTS["llmapi"], OUTPUTS["llmapi"], decoupled=True)
    required = {tensor.name for tensor in config.input if not tensor.optional}
    assert required == {"text_input"}
    assert msgspec.to_builtins(config)["model_transaction_policy"] == {"decoupled": True}


def test_keys_that_are_no_tensors() -> None:
    """A scalar becomes a parameter that nobody reads; a list or null cannot."""
    body = msgspec.json.encode({"text_input": "a", "max_tokens": 4, "maximum": 5})
    assert decode(body, "ensemble", "ensemble").max_tokens == 4
    values: tuple[object, ...] = ([1], None, {})
    for value in values:
        with pytest.raises(Invalid, match="parameter 'maximum' has invalid type"):
            decode(msgspec.json.encode({"text_input": "a", "maximum": value}), "m", "llmapi")


def test_required_inputs() -> None:
    """The ensemble needs a length, llmapi does not; cancelling needs neither."""
    with pytest.raises(Invalid, match=r"missing required input\(s\) \['max_tokens'\]"):
        decode(b'{"text_input":"a"}', "ensemble", "ensemble")
    assert decode(b'{"text_input":"a"}', "tensorrt_llm", "llmapi").max_tokens is None
    assert decode(b'{"text_input":"","stop":true}', "ensemble", "ensemble").cancels


def test_both_spellings_of_a_request() -> None:
    """Each layout has its own names, and `parameters` may hold them too."""
    ensemble = {"text_input": "a", "parameters": {"max_tokens": 4, "stop_words": ["b", "c"], "stream": True}}
    request = decode(msgspec.json.encode(ensemble), "ensemble", "ensemble")
    assert (request.max_tokens, request.stop_words, request.streaming) == (4, ("b", "c"), True)
    llmapi = {
        "text_input": ["a"],
        "sampling_param_max_tokens": 4,
        "sampling_param_stop": "b",
        "streaming": True,
        "return_finish_reason": True,
        "id": "7",
    }
    request = decode(msgspec.json.encode(llmapi), "tensorrt_llm", "llmapi")
    assert (request.text, request.stop_words, request.finish_reason, request.request_id) == (
        "a",
        ("b",),
        True,
        "7",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"text_input": 3},
        {"text_input": "a", "sampling_param_max_tokens": "many"},
        {"text_input": "a", "streaming": 1},
        {"text_input": "a", "sampling_param_max_tokens": [1, 2]},
        {"text_input": "a", "parameters": 3},
        {"text_input": "a", "id": 3},
    ],
    ids=str,
)
def test_tensors_of_the_wrong_type(fields: dict[str, object]) -> None:
    """Refused before anything runs."""
    with pytest.raises(Invalid):
        decode(msgspec.json.encode(fields), "tensorrt_llm", "llmapi")
