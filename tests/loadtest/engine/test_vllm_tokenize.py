import asyncio

from loadtest.engine.chat_template import render_chat
from loadtest.engine.tokens import encode
from tests.support.engine_client import engine, post

MESSAGES = [{"role": "user", "content": "Hi there"}]


def test_tokenize_text_and_chat() -> None:
    """Ids of text, and of the rendered prompt that the chat endpoint would run."""

    async def main() -> None:
        async with engine("vllm") as running:
            text = (
                await post(running, "/tokenize", {"prompt": "Hi there", "return_token_strs": True})
            ).json()
            ids = encode("Hi there")
            assert text == {
                "count": len(ids),
                "max_model_len": 8192,
                "tokens": ids,
                "token_strs": ["Hi ", "the", "re"],
            }
            chat = (await post(running, "/tokenize", {"messages": MESSAGES})).json()
            assert chat["tokens"] == encode(render_chat(MESSAGES)) and chat["token_strs"] is None
            answer = (await post(running, "/v1/chat/completions", {"messages": MESSAGES})).json()
            assert answer["usage"]["prompt_tokens"] == chat["count"]
            assert (await post(running, "/tokenize", {"model": "nope", "prompt": "x"})).status == 404

    asyncio.run(main())


def test_detokenize_undoes_tokenize() -> None:
    """Special tokens included; impossible ids are refused."""

    async def main() -> None:
        async with engine("vllm") as running:
            ids = encode(render_chat(MESSAGES))
            assert (await post(running, "/detokenize", {"tokens": ids})).json() == {
                "prompt": render_chat(MESSAGES)
            }
            assert (await post(running, "/detokenize", {"tokens": [-1]})).status == 400

    asyncio.run(main())


def test_render_gives_the_ids_that_would_run() -> None:
    """For chat one object, for completions one per prompt."""

    async def main() -> None:
        async with engine("vllm") as running:
            chat = (await post(running, "/v1/chat/completions/render", {"messages": MESSAGES})).json()
            assert chat["token_ids"] == encode(render_chat(MESSAGES))
            texts = (await post(running, "/v1/completions/render", {"prompt": ["a", "b"]})).json()
            assert [one["token_ids"] for one in texts] == [encode("a"), encode("b")]

    asyncio.run(main())
