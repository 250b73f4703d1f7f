import asyncio

from loadtest.engine.tokens import decode, encode
from tests.support.engine_client import engine, post


def test_token_ids_in_and_out() -> None:
    """The same tokens as completions give for the same prompt, streamed or not, and no text."""

    async def main() -> None:
        async with engine("vllm") as running:
            ids = encode("Once upon a time")
            sampling = {"max_tokens": 5, "ignore_eos": True, "temperature": 0}
            body = {"token_ids": ids, "sampling_params": sampling, "request_id": "r"}
            whole = (await post(running, "/inference/v1/generate", body)).json()
            assert whole["request_id"] == "generate-tokens-r"
            stream = await post(running, "/inference/v1/generate", {**body, "stream": True})
            streamed = [event["choices"][0] for event in stream.events()]
            assert [token for one in streamed for token in one["token_ids"]] == whole["choices"][0][
                "token_ids"
            ]
            assert streamed[-1]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"
            assert stream.chunks[-1] == b"data: [DONE]\n\n"
            text = (await post(running, "/v1/completions", {"prompt": ids, **sampling})).json()
            assert text["choices"][0]["text"] == decode(whole["choices"][0]["token_ids"])

    asyncio.run(main())


def test_bad_ids_and_models_are_refused() -> None:
    """As on the other endpoints."""

    async def main() -> None:
        async with engine("vllm") as running:
            for body, status in (
                ({"token_ids": []}, 400),
                ({"token_ids": [-1]}, 400),
                ({"token_ids": [20], "model": "nope"}, 404),
                ({}, 400),
            ):
                assert (await post(running, "/inference/v1/generate", body)).status == status

    asyncio.run(main())
