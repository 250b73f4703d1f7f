"""The replicas themselves, before any router stands in front: what the project's adapter relies on."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.real_vllm.environment import VERSION
from tests.real_vllm.replicas import CONTEXT_TOKENS, MODEL, Replica
from tests.real_vllm.wire import Answer, ask, connect, get, post

pytestmark = pytest.mark.real_vllm

Replicas = tuple[Replica, ...]

BLOCK_TOKENS = 128
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
QUESTION = [{"role": "user", "content": "How is a turnout thrown?"}]
WAIT_S = 30.0


def chat(replica: Replica, **fields: Any) -> Answer:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 12, "temperature": 0, **fields}
    return ask(replica.port, post("/v1/chat/completions", body))


def completions(replica: Replica, **fields: Any) -> Answer:
    body = {"model": MODEL, "prompt": "import asyncio", "max_tokens": 12, "temperature": 0, **fields}
    return ask(replica.port, post("/v1/completions", body))


def metric(replica: Replica, name: str) -> float:
    """The value of the one series of a metric. Fails where there is none, or more than one."""
    text = ask(replica.port, get("/metrics")).body.decode()
    (value,) = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return float(value)


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.02)


def text_of(events: list[Any]) -> str:
    """The content of a chat stream's first choice."""
    choices = [event["choices"][0] for event in events if event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


# ---- who they are ----


def test_models_and_version_name_the_engine(replicas: Replicas) -> None:
    """Each replica tells that it is vLLM, which version, which model and how much context it has."""
    for replica in replicas:
        (model,) = ask(replica.port, get("/v1/models")).json()["data"]
        assert (model["id"], model["owned_by"], model["max_model_len"]) == (MODEL, "vllm", CONTEXT_TOKENS)
        assert ask(replica.port, get("/version")).json() == {"version": VERSION}


def test_equal_replicas_have_equal_fingerprints(replicas: Replicas) -> None:
    """The fingerprint names version and configuration, so that replicas of one version can be compared."""
    fingerprints = {chat(replica, max_tokens=1).json()["system_fingerprint"] for replica in replicas}
    assert len(fingerprints) == 1
    assert re.fullmatch(rf"vllm-{re.escape(VERSION)}-[0-9a-f]{{8}}", fingerprints.pop())


# ---- answers and streams ----


def test_greedy_answers_are_equal_on_both_replicas(replicas: Replicas) -> None:
    """Both replicas load the same weights, so greedy decoding gives the same tokens: continuation needs it."""
    answers = [chat(replica, max_tokens=64, return_token_ids=True).json() for replica in replicas]
    first, second = (answer["choices"][0]["token_ids"] for answer in answers)
    assert first == second
    assert len(set(first)) > 10, "the noise must not be one token over and over"


def test_a_chat_stream_says_what_the_whole_answer_says(replicas: Replicas) -> None:
    """The deltas add up to the whole answer's text; role first, one finish reason, usage, then [DONE]."""
    whole = chat(replicas[0]).json()
    stream = chat(replicas[0], **USAGE)
    events = stream.events()
    assert stream.data()[-1] == "[DONE]"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(events) == whole["choices"][0]["message"]["content"]
    reasons = [event["choices"][0]["finish_reason"] for event in events if event["choices"]]
    assert [reason for reason in reasons if reason] == ["length"]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 12


def test_a_completions_stream_says_what_the_whole_answer_says(replicas: Replicas) -> None:
    """The texts add up, and there is no role chunk."""
    whole = completions(replicas[0]).json()
    stream = completions(replicas[0], **USAGE)
    texts = [event["choices"][0]["text"] for event in stream.events() if event["choices"]]
    assert "".join(texts) == whole["choices"][0]["text"]
    assert texts[0]
    assert stream.data()[-1] == "[DONE]"


def test_usage_comes_only_when_asked_for(replicas: Replicas) -> None:
    """Without `include_usage` no chunk of a stream has usage, so the router must ask for it."""
    assert all("usage" not in event for event in chat(replicas[0], stream=True).events())


def test_each_event_is_one_http_chunk(replicas: Replicas) -> None:
    """The chunk sizes are the sizes of the events, [DONE] included."""
    stream = chat(replicas[0], **USAGE)
    assert stream.header("transfer-encoding") == "chunked"
    assert stream.header("content-type") == "text/event-stream; charset=utf-8"
    assert stream.chunks == tuple(len(f"data: {payload}\n\n".encode()) for payload in stream.data())


def test_the_request_id_is_kept(replicas: Replicas) -> None:
    """The client's id becomes part of the answer's id and comes back as a header."""
    request = post(
        "/v1/completions", {"model": MODEL, "prompt": "a", "max_tokens": 1}, ("x-request-id", "r-7")
    )
    answer = ask(replicas[0].port, request)
    assert (answer.json()["id"], answer.header("x-request-id")) == ("cmpl-r-7", "r-7")


# ---- continuing and token ids ----


def test_token_ids_come_with_the_prompt_and_each_delta(replicas: Replicas) -> None:
    """`return_token_ids` gives the rendered prompt first and then as many ids as usage counts."""
    events = chat(replicas[0], **USAGE, return_token_ids=True).events()
    rendered = ask(replicas[0].port, post("/tokenize", {"model": MODEL, "messages": QUESTION})).json()
    assert events[0]["prompt_token_ids"] == rendered["tokens"]
    tokens = [token for event in events[1:-1] for token in event["choices"][0]["token_ids"]]
    assert len(tokens) == events[-1]["usage"]["completion_tokens"] == 12


def test_the_other_replica_continues_from_token_ids(replicas: Replicas) -> None:
    """Half an answer from one replica, continued by the other from its ids, is the whole answer of either."""
    whole = chat(replicas[0], max_tokens=24, return_token_ids=True).json()
    expected = whole["choices"][0]["token_ids"]
    half = completions(
        replicas[1],
        prompt=[*whole["prompt_token_ids"], *expected[:12]],
        max_tokens=12,
        add_special_tokens=False,
        return_token_ids=True,
    )
    assert half.json()["choices"][0]["token_ids"] == expected[12:]


def test_the_other_replica_continues_from_text(replicas: Replicas) -> None:
    """`continue_final_message` goes on where the text stopped, after one more role chunk."""
    text = chat(replicas[0], max_tokens=6).json()["choices"][0]["message"]["content"]
    continued = chat(
        replicas[1],
        **USAGE,
        messages=[*QUESTION, {"role": "assistant", "content": text}],
        max_tokens=6,
        add_generation_prompt=False,
        continue_final_message=True,
    ).events()
    assert continued[0]["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(continued)
    assert continued[-1]["usage"]["completion_tokens"] == 6


# ---- the prefix cache ----


def test_cached_tokens_grow_by_whole_blocks(replicas: Replicas) -> None:
    """A repeated prompt reports its whole blocks as cached, and the counter grows by just as much."""
    replica = replicas[0]
    prompt = [*range(200, 200 + 3 * BLOCK_TOKENS + 40)]
    details = []
    hits = metric(replica, "vllm:prefix_cache_hits_total")
    for length in (BLOCK_TOKENS + 10, 2 * BLOCK_TOKENS + 10, len(prompt), len(prompt)):
        usage = completions(replica, **USAGE, prompt=prompt[:length], max_tokens=1).events()[-1]["usage"]
        details.append(usage["prompt_tokens_details"]["cached_tokens"])
    assert details == [0, BLOCK_TOKENS, 2 * BLOCK_TOKENS, 3 * BLOCK_TOKENS]
    grown = metric(replica, "vllm:prefix_cache_hits_total") - hits
    assert grown == sum(details)


def test_the_cache_of_one_replica_is_not_the_other_s(replicas: Replicas) -> None:
    """What one replica has cached is cold on the other: the reason for routing by prefix."""
    prompt = [*range(1000, 1000 + BLOCK_TOKENS + 1)]
    cached = [
        completions(replica, prompt=prompt, max_tokens=1).json()["usage"]["prompt_tokens_details"][
            "cached_tokens"
        ]
        for replica in (replicas[0], replicas[0], replicas[1])
    ]
    assert cached == [0, BLOCK_TOKENS, 0]


def test_a_salt_separates_equal_prompts(replicas: Replicas) -> None:
    """Equal prompts with different `cache_salt` share nothing."""
    prompt = [*range(1500, 1500 + BLOCK_TOKENS + 1)]
    cached = [
        completions(replicas[0], prompt=prompt, cache_salt=salt, max_tokens=1).json()["usage"][
            "prompt_tokens_details"
        ]
        for salt in ("a", "b", "a")
    ]
    assert [details["cached_tokens"] for details in cached] == [0, 0, BLOCK_TOKENS]


# ---- errors ----


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_404(replicas: Replicas, stream: bool) -> None:
    """The name is checked before the stream begins, so even a stream gets a real status."""
    answer = chat(replicas[0], model="nope", stream=stream)
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"], error["code"]) == (
        404,
        "NotFoundError",
        "model",
        404,
    )
    assert error["message"].startswith("The model `nope` does not exist.")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_400(replicas: Replicas, stream: bool) -> None:
    """The message tells the limit, which is how the adapter recognises it."""
    answer = completions(replicas[0], prompt=[5] * (CONTEXT_TOKENS + 1), stream=stream)
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "BadRequestError", "input_tokens")
    assert f"maximum context length is {CONTEXT_TOKENS} tokens" in error["message"]


def test_output_beyond_the_context_is_cut_silently(replicas: Replicas) -> None:
    """A prompt that fits with a `max_tokens` that does not is no error: the answer is shorter."""
    answer = completions(
        replicas[0], prompt=[5] * (CONTEXT_TOKENS - 3), max_tokens=100, ignore_eos=True
    ).json()
    assert answer["usage"]["total_tokens"] == CONTEXT_TOKENS
    assert answer["choices"][0]["finish_reason"] == "length"


def test_max_tokens_beyond_the_context_is_400(replicas: Replicas) -> None:
    """`max_tokens` alone above the context is refused under its own name."""
    answer = chat(replicas[0], max_tokens=CONTEXT_TOKENS + 1)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "max_tokens"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"tiny"', "body.15"),
        (b'{"model":"tiny","prompt":"a","max_tokens":"many"}', "body.max_tokens"),
    ],
)
def test_a_body_that_cannot_be_read_is_400(replicas: Replicas, body: bytes, param: str) -> None:
    """Bad JSON and a wrong type are validation errors that name the place."""
    answer = ask(replicas[0].port, post("/v1/completions", body))
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"], error["code"]) == (400, "Bad Request", param, 400)
    assert error["message"].startswith("1 validation error:")


def test_an_unknown_path_has_another_error_shape(replicas: Replicas) -> None:
    """A path that this model does not offer answers with `detail` instead of `error`."""
    answer = ask(replicas[0].port, post("/v1/embeddings", {"model": MODEL, "input": "a"}))
    assert (answer.status, answer.json()) == (404, {"detail": "Not Found"})


# ---- leaving, and being watched ----


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnect_aborts_the_request(replicas: Replicas, stream: bool) -> None:
    """When the client leaves, the engine stops: nothing runs, and it ends far below what was asked for."""
    replica = replicas[0]
    before = metric(replica, "vllm:generation_tokens_total")
    body = {"model": MODEL, "prompt": "a", "max_tokens": 4000, "ignore_eos": True, "stream": stream}
    connection, _ = connect(replica.port, post("/v1/completions", body))
    with connection:
        eventually(lambda: metric(replica, "vllm:generation_tokens_total") > before, "the request runs")
        assert metric(replica, "vllm:num_requests_running") == 1
    eventually(lambda: metric(replica, "vllm:num_requests_running") == 0, "nothing runs")
    assert metric(replica, "vllm:generation_tokens_total") - before < 4000


def test_the_metrics_that_the_router_reads(replicas: Replicas) -> None:
    """Every series that `ReplicaLoad` is made from has its name, its labels and one value per engine."""
    chat(replicas[0])
    text = ask(replicas[0].port, get("/metrics")).body.decode()
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "num_preemptions_total",
        "request_queue_time_seconds_sum",
        "request_queue_time_seconds_count",
        "iteration_tokens_total_count",
    ):
        assert re.search(rf'^vllm:{name}{{engine="0",model_name="{MODEL}"}} \S+$', text, re.MULTILINE), name
    assert re.search(
        r'^vllm:prompt_tokens_by_source_total{.*source="local_compute"} \S+$', text, re.MULTILINE
    )
    assert re.search(r'^vllm:engine_sleep_state{.*sleep_state="awake"} 1.0$', text, re.MULTILINE)
    assert re.search(rf'^vllm:cache_config_info{{.*block_size="{BLOCK_TOKENS}".*}} 1.0$', text, re.MULTILINE)
