"""The simulated vLLM beside a real one: the same requests, the same bytes but for what a model decides."""

import asyncio
import json
from typing import Any

import pytest

from loadtest.engine.server import RunningEngine
from loadtest.engine.vllm_tools import ToolPlan
from tests.support.engine_client import Reply, call, engine
from tests.support.wire import recorded

FLAGS = {
    "version": "0.32.0",
    "fingerprint": "60422990",
    "enable_prompt_tokens_details": True,
    "enable_request_id_headers": True,
}
LIKE = {"model": "tiny", "max_model_len": 4096, "block_size": 128, "num_blocks": 8192}
EXCHANGES = {one["case"]: one for one in json.loads(recorded("vllm-recorded/exchanges.json"))}
ERRORS = {one["case"]: one for one in json.loads(recorded("vllm-recorded/errors.json"))}
LATER = {"chat_stream_aborted", "chat_stream_paused", "chat_paused", "chat_stream_engine_dead"}
"""Answers that another request ended; tested for themselves."""
MODEL = {
    *("chat_end_token", "chat_stream_end_token", "chat_stream_split_character", "chat_stream_json_object"),
    *("chat_stream_stop_string", "completions_stream_stop_token", "chat_stream_tool_cut"),
}
"""Answers in which the model's own choice of tokens is the point."""
COMPARED = [
    case
    for case, one in EXCHANGES.items()
    if case not in LATER | MODEL and one["request"].get("body") is not None
]


def shape(value: Any, name: str = "") -> Any:
    """Keys in order, nulls, booleans and the words of the protocol; what a model decides becomes its type."""
    if isinstance(value, dict):
        if name in ("top_logprobs", "prompt_logprobs"):
            return "by token"
        return tuple((key, shape(one, key)) for key, one in value.items())
    if isinstance(value, list):
        shapes = [shape(one, name) for one in value]
        return ("list", *dict.fromkeys(shapes))
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str) and name in (
        "object",
        "role",
        "type",
        "model",
        "status",
        "finish_reason",
        "owned_by",
    ):
        return value
    return "number" if isinstance(value, int | float) else type(value).__name__


def events_of(text: str) -> list[Any]:
    """The shape of every event, runs of equal ones once, because lengths differ."""
    shapes: list[Any] = []
    for block in text.strip().split("\n\n"):
        *names, data = block.split("\n")
        content = data.removeprefix("data: ")
        one = (*names, content if content == "[DONE]" else shape(json.loads(content)))
        if not shapes or shapes[-1] != one:
            shapes.append(one)
    return shapes


async def sent(running: RunningEngine, request: dict[str, Any]) -> Reply:
    """Send a recorded request."""
    headers = dict(request["headers"])
    if "body_text" in request:
        body = request["body_text"].replace("\\xff", "\xff").encode("latin-1")
    else:
        body = b"" if request.get("body") is None else json.dumps(request["body"]).encode()
    if request["method"] == "POST":
        headers.setdefault("content-type", "application/json")
    return await call(running, request["method"], request["path"], body, headers)


def answered(request: dict[str, Any], **extra: Any) -> Reply:
    """What a fresh simulated replica answers."""

    async def main() -> Reply:
        async with engine("vllm", extra={**FLAGS, **extra}, **LIKE) as running:
            return await sent(running, request)

    return asyncio.run(main())


@pytest.mark.parametrize("case", COMPARED)
def test_answers_have_the_recorded_form(case: str) -> None:
    """Events, keys, their order, nulls and protocol words are those of a real vLLM."""
    documented = EXCHANGES[case]
    reply = answered(documented["request"])
    assert reply.status == documented["status"]
    real = recorded(f"vllm-recorded/{documented['file']}").decode()
    if documented["file"].endswith(".sse"):
        assert _without_token_order(events_of(reply.text)) == _without_token_order(events_of(real))
        assert reply.whole and len(reply.chunks) == reply.text.count("\n\n")
    else:
        assert shape(reply.json()) == shape(json.loads(real))


def _first_text(case: str) -> tuple[list[str], list[int]]:
    """The words that the simulated model says to a recorded request, and their ids."""
    request = EXCHANGES[case]["request"]
    body = {**request["body"], "stop": None, "stop_token_ids": None, "return_token_ids": True}
    choices = [
        event["choices"][0] for event in answered({**request, "body": body}).events() if event["choices"]
    ]
    said = [choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices]
    ids = [token for choice in choices for token in choice.get("token_ids") or ()]
    return [text for text in said if text], ids


def _compared(case: str, **changes: Any) -> None:
    documented = EXCHANGES[case]
    request = {**documented["request"], "body": documented["request"]["body"] | changes}
    real = recorded(f"vllm-recorded/{documented['file']}").decode()
    assert events_of(answered(request).text) == events_of(real)


def test_a_stop_string_in_the_recorded_form() -> None:
    """The recorded answer stopped within its second token; so does this one."""
    words, _ = _first_text("chat_stream_stop_string")
    _compared("chat_stream_stop_string", stop=[words[1].strip()])


def test_a_stop_token_in_the_recorded_form() -> None:
    """The second token stops it and leaves no text."""
    _, ids = _first_text("completions_stream_stop_token")
    _compared("completions_stream_stop_token", stop_token_ids=[ids[1]])


def test_a_call_cut_in_its_arguments_in_the_recorded_form() -> None:
    """The last piece of the arguments carries the finish reason."""
    plan = ToolPlan.of(EXCHANGES["chat_stream_tool_cut"]["request"]["body"]["tools"][0]["function"])
    _compared("chat_stream_tool_cut", max_tokens=plan.start + 1)


def _without_token_order(events: list[Any]) -> list[Any]:
    """Several choices take turns as the engine's batch falls: their kinds of event count, not the turns."""
    return list(dict.fromkeys(events))


@pytest.mark.parametrize("case", [case for case in COMPARED if EXCHANGES[case]["file"].endswith("json")])
def test_headers_of_answers(case: str) -> None:
    """Every recorded header is there with its value, but for date, length, and the CORS trace."""
    documented = EXCHANGES[case]
    reply = answered(documented["request"])
    for name, value in documented["headers"]:
        if name not in ("date", "content-length", "vary"):
            assert reply.headers[name] == value


ELSEWHERE = {
    "embeddings of a generating model",
    "score of a generating model",
    "no key",
    "wrong key",
    "no key, models",
    "queue full",
    "queue full, streaming",
    "engine dead",
    "draining",
    "draining, streaming",
    "draining, health",
    "two mistakes",
    "token out of vocabulary",
}
"""Errors that need a state or a model of their own."""
PLAIN = [case for case, one in ERRORS.items() if case not in ELSEWHERE and "body_bytes" not in one["request"]]
UNPARSED = {"tools without a parser", "required tool without a parser", "named tool without a parser"}


@pytest.mark.parametrize("case", PLAIN)
def test_errors_have_the_recorded_bytes(case: str) -> None:
    """Status and body, to the letter."""
    documented = ERRORS[case]
    extra = {"tool_call_parser": False} if case in UNPARSED else {}
    if case.startswith("render without"):
        extra = {"enable_scale_out": False}
    reply = answered(documented["request"], **extra)
    assert (reply.status, reply.text) == (documented["status"], documented["body"])


@pytest.mark.parametrize(
    ("case", "body"),
    [
        ("prompt too long", {"prompt": [20] * 5_000}),
        ("prompt too long, token ids", {"prompt": [20] * 4_097, "max_tokens": 5}),
        ("prompt too long, chat", {"messages": [{"role": "user", "content": " bala" * 4_200}]}),
        ("prompt too long, by its characters", {"prompt": "x" * 300_000}),
        ("prompt fills the context", {"prompt": [20] * 4_096}),
    ],
)
def test_context_errors_have_the_recorded_bytes(case: str, body: dict[str, Any]) -> None:
    """The recorded requests are left out of the recording for their size; these are like them."""
    request = {**ERRORS[case]["request"], "body": body}
    reply = answered(request)
    assert (reply.status, reply.text) == (ERRORS[case]["status"], ERRORS[case]["body"])


def test_out_of_vocabulary() -> None:
    """The recorded words with this vocabulary's bound."""
    reply = answered({**ERRORS["token out of vocabulary"]["request"], "body": {"prompt": [99_999_999]}})
    documented = ERRORS["token out of vocabulary"]["body"].replace("999999", "99999999")
    assert (reply.status, reply.text) == (400, documented)


def test_an_output_is_cut_to_the_context() -> None:
    """A wish beyond what is left of the context is cut, not refused."""
    request = {**EXCHANGES["completions_stream_output_cut_to_context"]["request"]}
    request["body"] = {"prompt": [20] * 4_093, "max_tokens": 50, "ignore_eos": True}
    usage = answered(request).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4093, 3)


def test_a_full_queue_is_refused() -> None:
    """With `--max-num-queued-reqs` there is an overload signal after all."""

    async def main() -> None:
        extra = {**FLAGS, "max_num_queued_reqs": 2}
        async with engine("vllm", extra=extra, max_num_seqs=1, **LIKE) as running:
            running.core.stall()
            request = EXCHANGES["completions"]["request"]
            waiting = [asyncio.create_task(sent(running, request)) for _ in range(2)]
            while running.core.stats().waiting < 2:
                await asyncio.sleep(0.001)
            for case in ("queue full", "queue full, streaming"):
                reply = await sent(
                    running, {**request, "body": ERRORS[case]["request"]["body"] | {"prompt": "x"}}
                )
                assert (reply.status, reply.text) == (503, ERRORS[case]["body"])
            running.core.resume()
            assert [reply.status for reply in await asyncio.gather(*waiting)] == [200, 200]
            metrics = await call(running, "GET", "/metrics", b"", {})
            assert (
                'admission_rejections_total{model_name="tiny",reason="max_num_queued_reqs"} 2.0'
                in metrics.text
            )

    asyncio.run(main())


def test_a_draining_server_refuses_and_looks_healthy() -> None:
    """After SIGTERM with time to drain: what runs finishes, what comes is a 500, and health knows nothing."""

    async def main() -> None:
        async with engine("vllm", speed=20.0, extra=FLAGS, **LIKE) as running:
            body = {"prompt": "x", "max_tokens": 300, "ignore_eos": True}
            request = {**EXCHANGES["completions"]["request"], "body": body}
            running_one = asyncio.create_task(sent(running, request))
            while not running.core.stats().running:
                await asyncio.sleep(0.001)
            shutdown = asyncio.create_task(running.shutdown(10.0))
            await asyncio.sleep(0)
            refused = await sent(running, request)
            assert (refused.status, refused.text) == (500, ERRORS["draining"]["body"])
            assert (await call(running, "GET", "/health", b"", {})).status == 200
            assert (await running_one).json()["usage"]["completion_tokens"] == 300
            await shutdown

    asyncio.run(main())


def test_a_dead_engine() -> None:
    """Streams get the error event, whole answers the 500, both in the recorded words."""

    async def main() -> None:
        async with engine("vllm", speed=1.0, extra=FLAGS, **LIKE) as running:
            stream, whole = (
                asyncio.create_task(sent(running, one))
                for one in (EXCHANGES["chat_stream_engine_dead"]["request"], ERRORS["engine dead"]["request"])
            )
            while running.core.stats().waiting < 2:
                await asyncio.sleep(0)
            running.core.kill()
            assert (await stream).body == recorded("vllm-recorded/chat_stream_engine_dead.sse")
            reply = await whole
            assert (reply.status, reply.text) == (500, ERRORS["engine dead"]["body"])

    asyncio.run(main())
