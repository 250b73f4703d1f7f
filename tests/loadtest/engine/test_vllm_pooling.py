import asyncio
import base64
import math
import struct

import pytest

from loadtest.engine.tokens import encode
from loadtest.engine.vllm_pooling import embedding, similarity
from tests.support.engine_client import engine, post


def test_vectors_have_length_one_and_depend_on_the_text() -> None:
    """Equal texts, equal vectors; the sizes are as asked."""
    one, other = embedding(encode("the sea"), 32), embedding(encode("the land"), 32)
    assert (math.hypot(*one), math.hypot(*other)) == pytest.approx((1, 1))
    assert one == embedding(encode("the sea"), 32) != other
    assert len(one) == 32


def test_similar_texts_are_nearer() -> None:
    """Equal is 1; common tokens count."""
    sea, same, other = "waves on the sea", "waves on the sea shore", "9482 qqq zzz"
    assert similarity(sea, sea) == pytest.approx(1)
    assert similarity(sea, same) > similarity(sea, other)


def test_embeddings_as_floats_and_as_base64() -> None:
    """The same numbers in both encodings, one entry per input."""

    async def main() -> None:
        async with engine("vllm") as running:
            body = {"input": ["the sea", "the land"], "model": "demo-8b"}
            floats = (await post(running, "/v1/embeddings", body)).json()
            assert [entry["index"] for entry in floats["data"]] == [0, 1]
            assert len(floats["data"][0]["embedding"]) == 64
            tokens = len(encode("the sea")) + len(encode("the land"))
            assert floats["usage"]["prompt_tokens"] == floats["usage"]["total_tokens"] == tokens
            packed = (await post(running, "/v1/embeddings", {**body, "encoding_format": "base64"})).json()
            for one, other in zip(floats["data"], packed["data"], strict=True):
                raw = base64.b64decode(other["embedding"])
                assert struct.unpack("<64f", raw) == pytest.approx(one["embedding"], abs=1e-6)
            assert (
                len(
                    (await post(running, "/v1/embeddings", {"input": [20, 21], "dimensions": 8})).json()[
                        "data"
                    ]
                )
                == 1
            )
            for bad in (
                {"input": []},
                {"input": "x", "encoding_format": "hex"},
                {"input": "x", "dimensions": -1},
            ):
                assert (await post(running, "/v1/embeddings", bad)).status == 400
            assert (await post(running, "/v1/embeddings", {**body, "model": "nope"})).status == 404

    asyncio.run(main())


def test_scores_of_pairs() -> None:
    """One against many, or pair by pair; other shapes are refused."""

    async def main() -> None:
        async with engine("vllm") as running:
            many = (await post(running, "/score", {"text_1": "a b", "text_2": ["a b", "c d"]})).json()
            assert [entry["index"] for entry in many["data"]] == [0, 1]
            assert many["data"][0]["score"] == pytest.approx(1)
            assert many["data"][1]["score"] < 0.9
            pairs = {"queries": ["a", "b"], "documents": ["a", "b"]}
            assert len((await post(running, "/v1/score", pairs)).json()["data"]) == 2
            assert (await post(running, "/score", {"text_1": ["a", "b"], "text_2": ["a"]})).status == 400

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_ranking(path: str) -> None:
    """Best first, as many as asked, each with the index it had."""

    async def main() -> None:
        async with engine("vllm") as running:
            body = {"query": "the sea", "documents": ["9482", {"text": "the sea"}, "the sea shore"]}
            results = (await post(running, path, body)).json()["results"]
            assert results[0]["index"] == 1 and len(results) == 3
            scores = [result["relevance_score"] for result in results]
            assert scores == sorted(scores, reverse=True)
            assert len((await post(running, path, {**body, "top_n": 1})).json()["results"]) == 1
            assert (await post(running, path, {"query": "x", "documents": []})).status == 400

    asyncio.run(main())
