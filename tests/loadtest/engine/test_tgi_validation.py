"""What TGI refuses, and how it fails, on real sockets: with a status of its own or inside a stream of 200."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.engine_client import engine, get, post, until

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines" / "tgi"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 6, "temperature": 0}


def test_overload() -> None:
    """429 for a whole answer; in a stream 200, and 422 in the event."""

    async def run() -> None:
        async with engine("tgi", extra={"max_concurrent_requests": 1}) as tgi:
            tgi.core.stall()
            async with asyncio.TaskGroup() as group:
                busy = group.create_task(post(tgi, "/v1/chat/completions", CHAT))
                await until(lambda: tgi.core.stats().waiting)
                whole = await post(tgi, "/v1/chat/completions", CHAT)
                chat = await post(tgi, "/v1/chat/completions", {**CHAT, "stream": True})
                text = await post(tgi, "/v1/completions", {"prompt": "a", "stream": True})
                native = await post(tgi, "/generate_stream", {"inputs": "a"})
                tgi.core.resume()
                await busy
            assert (whole.status, whole.json()) == (
                429,
                {"error": "Model is overloaded", "error_type": "overloaded"},
            )
            overloaded = (FIXTURES / "chat_stream_overloaded_http200.sse").read_bytes()
            assert (chat.status, chat.body) == (200, overloaded)
            assert (text.status, text.body) == (200, overloaded)
            expected = (FIXTURES / "generate_stream_overloaded_http200.sse").read_bytes()
            assert (native.status, native.body) == (200, expected)
            assert b'tgi_request_failure{err="overloaded"} 4\n' in (await get(tgi, "/metrics")).body

    asyncio.run(run())


def test_validation() -> None:
    """Ranges are 422 for a whole answer and an event in a stream."""

    async def run() -> None:
        async with engine("tgi", max_model_len=512) as tgi:
            for fields, message in (
                ({"top_p": 1}, "`top_p` must be > 0.0 and < 1.0"),
                ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
                ({"max_tokens": 0}, "`max_new_tokens` must be strictly positive"),
                ({"presence_penalty": -2}, "`repetition_penalty` must be strictly positive"),
                ({"max_tokens": 510}, "`inputs` tokens + `max_new_tokens` must be <= 512. Given: "),
                ({"top_logprobs": 9}, "`top_n_tokens` must be >= 0 and <= 5. Given: 9"),
                (
                    {"response_format": {"type": "json_object", "value": {"type": "object"}}},
                    "grammar is not valid: Grammar must have a 'properties' field",
                ),
            ):
                whole = await post(tgi, "/v1/chat/completions", {**CHAT, **fields})
                assert whole.status == 422
                assert whole.json()["error"].startswith(f"Input validation error: {message}")
                assert whole.json()["error_type"] == "validation"
                streamed = await post(tgi, "/v1/chat/completions", {**CHAT, **fields, "stream": True})
                assert streamed.status == 200
                (event,) = streamed.events()
                assert event["error"]["message"] == whole.json()["error"]
                assert event["error"]["http_status_code"] == 422
            too_long = {"inputs": "x" * 3000, "parameters": {"max_new_tokens": 1}}
            assert "must be <= 512" in (await post(tgi, "/generate", too_long)).json()["error"]

    asyncio.run(run())


def test_framework_refusals() -> None:
    """Plain text for types, media types, sizes and syntax."""

    async def run() -> None:
        async with engine("tgi", extra={"payload_limit": 2000}) as tgi:
            path = "/v1/chat/completions"
            for body, headers, status in (
                ({**CHAT, "stop": "x"}, {}, 422),
                ({**CHAT, "stream_options": None}, {}, 422),
                ({**CHAT, "logit_bias": {"1": 1}}, {}, 422),
                (b"{", {}, 400),
                (CHAT, {"content-type": "text/plain"}, 415),
                ({**CHAT, "user": "x" * 2000}, {}, 413),
            ):
                reply = await post(tgi, path, body, headers)
                assert (reply.status, reply.headers["content-type"]) == (status, "text/plain; charset=utf-8")
                assert reply.body

    asyncio.run(run())


def test_scripted_errors() -> None:
    """A failing generation is an event and `[DONE]`, or 424; an abort is an incomplete generation."""

    async def run() -> None:
        async with engine("tgi") as tgi:
            streamed = {**CHAT, "stream": True}
            broken = await post(tgi, "/v1/chat/completions", streamed, {"x-fault": "error@3"})
            assert len(broken.events()) == 4
            assert broken.events()[-1]["error"] == {
                "message": "Request failed during generation: Server error: Internal server error",
                "http_status_code": 422,
            }
            assert broken.chunks[-1] == b"data: [DONE]\n\n"
            whole = await post(tgi, "/v1/chat/completions", CHAT, {"x-fault": "error@3"})
            assert (whole.status, whole.json()["error_type"]) == (424, "generation")
            native = await post(tgi, "/generate_stream", {"inputs": "a"}, {"x-fault": "error@2"})
            assert native.events()[-1]["error_type"] == "generation"
            cut = await post(tgi, "/v1/chat/completions", CHAT, {"x-fault": "abort@2"})
            assert (cut.status, cut.json()) == (
                500,
                {"error": "Incomplete generation", "error_type": "incomplete_generation"},
            )
            cut = await post(tgi, "/v1/chat/completions", streamed, {"x-fault": "abort@2"})
            assert cut.events()[-1]["error"]["message"] == "Incomplete generation stream"
            status = await post(tgi, "/v1/chat/completions", CHAT, {"x-fault": "status=503"})
            assert (status.status, status.json()["error_type"]) == (503, "healthcheck")

    asyncio.run(run())
