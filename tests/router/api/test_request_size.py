"""Everything that makes an engine work more is seen, in every dialect; nothing passes uncounted."""

from typing import Any

import msgspec
import pytest

from policies.limits.usage import Size
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest
from router.api.request_size import MEDIA_BYTES, size_of
from router.api.tgi import DEFAULT_NEW_TOKENS, read_generate

JSON = {"content-type": "application/json"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def asked(endpoint: Endpoint, **members: Any) -> InferenceRequest:
    return read_request(endpoint, "id", JSON, msgspec.json.encode({"model": "m", **members}), RequestRules())


def generate(parameters: dict[str, Any] | None) -> InferenceRequest:
    body = msgspec.json.encode({"inputs": "p", "parameters": parameters})
    return read_generate(Endpoint.GENERATE, "id", JSON, body, RequestRules(), "m")


def test_a_plain_chat() -> None:
    """Its bytes, one answer, no bound."""
    request = asked(Endpoint.CHAT, **CHAT)
    assert size_of(request) == Size("generate", len(request.body))


@pytest.mark.parametrize("endpoint", Endpoint)
def test_every_endpoint_has_a_size(endpoint: Endpoint) -> None:
    """A new one cannot be forgotten."""
    request = InferenceRequest(
        id="i", endpoint=endpoint, model="m", stream=False, body=b"{}", members={}, needs=frozenset()
    )
    assert size_of(request).prompt_bytes == 2


@pytest.mark.parametrize(
    ("members", "most"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 1, "max_completion_tokens": 1000}, 1000),
        ({"max_tokens": 1000, "max_completion_tokens": 1}, 1000),
        ({"max_tokens": None}, None),
    ],
)
def test_of_two_bounds_the_larger_counts(members: dict[str, Any], most: int | None) -> None:
    """Nobody reserves 1 and uses 1,000."""
    assert size_of(asked(Endpoint.CHAT, **CHAT, **members)).most_output == most


@pytest.mark.parametrize(("asks", "cap", "most"), [(5, 9, 5), (9, 5, 5), (None, 5, 5), (5, None, 5)])
def test_the_model_bounds_too(asks: int | None, cap: int | None, most: int) -> None:
    """Whichever is less."""
    assert size_of(asked(Endpoint.CHAT, **CHAT, max_tokens=asks), cap).most_output == most


@pytest.mark.parametrize(
    ("members", "answers"),
    [
        ({"prompt": "a", "n": 3}, 3),
        ({"prompt": "a", "n": 2, "best_of": 5}, 5),
        ({"prompt": ["a", "b", "c"]}, 3),
        ({"prompt": ["a", "b"], "n": 2, "best_of": 4}, 8),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
    ],
)
def test_answers_are_counted_over_prompts_and_candidates(members: dict[str, Any], answers: int) -> None:
    """A batch of prompts, several choices, and the candidates of which the best is returned."""
    assert size_of(asked(Endpoint.COMPLETIONS, **members)).answers == answers


@pytest.mark.parametrize(
    ("endpoint", "members", "tokens"),
    [
        (Endpoint.COMPLETIONS, {"prompt": [1, 2, 3]}, 3),
        (Endpoint.COMPLETIONS, {"prompt": [[1, 2], [3], [4, 5]]}, 5),
        (Endpoint.EMBEDDINGS, {"input": [[1, 2], [3]]}, 3),
        (Endpoint.EMBEDDINGS, {"input": ["1, 2", "3"]}, 0),
        (Endpoint.COMPLETIONS, {"prompt": "[1, 2]"}, 0),
    ],
)
def test_token_ids_are_counted(endpoint: Endpoint, members: dict[str, Any], tokens: int) -> None:
    """They need no estimate."""
    assert size_of(asked(endpoint, **members)).exact_tokens == tokens


def test_base64_is_no_text() -> None:
    """A picture counts the same whatever its size; a long text is not taken for one, nor is base64 that nobody announces."""

    def prompt_bytes(content: Any) -> tuple[int, int]:
        request = asked(Endpoint.CHAT, messages=[{"role": "user", "content": content}])
        return size_of(request).prompt_bytes, len(request.body)

    picture = "A" * 50_000
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    sound = {"type": "input_audio", "input_audio": {"data": picture, "format": "wav"}}
    for media in ([image], [sound]):
        counted, sent = prompt_bytes(media)
        assert sent > 50_000
        assert MEDIA_BYTES < counted < MEDIA_BYTES + 200
    counted, sent = prompt_bytes([image, sound])
    assert 2 * MEDIA_BYTES < counted < 2 * MEDIA_BYTES + 400
    for text in ("of base64 " * 500, picture):
        counted, sent = prompt_bytes(text)
        assert counted == sent


@pytest.mark.parametrize(
    ("parameters", "most", "answers"),
    [
        (None, DEFAULT_NEW_TOKENS, 1),
        ({"max_new_tokens": 9}, 9, 1),
        ({"max_new_tokens": 9, "best_of": 4}, 9, 4),
        ({"max_new_tokens": 9, "watermark": True}, 9, 1),
        ({"best_of": 2}, None, 2),
    ],
)
def test_tgi_says_it_in_its_parameters(
    parameters: dict[str, Any] | None, most: int | None, answers: int
) -> None:
    """Also where no other engine could do what is asked."""
    size = size_of(generate(parameters))
    assert (size.work, size.most_output, size.answers) == ("generate", most, answers)


@pytest.mark.parametrize(
    ("endpoint", "members", "work"),
    [
        (Endpoint.EMBEDDINGS, {"input": "a", "n": 9}, "encode"),
        (Endpoint.RERANK, {"query": "a", "documents": ["b"]}, "encode"),
        (Endpoint.SCORE, {"text_1": "a", "text_2": "b"}, "encode"),
        (Endpoint.TOKENIZE, {"prompt": "a"}, "none"),
    ],
)
def test_what_writes_nothing_has_one_answer(endpoint: Endpoint, members: dict[str, Any], work: str) -> None:
    """And runs the model on its prompt, or not at all."""
    size = size_of(asked(endpoint, **members))
    assert (size.work, size.answers) == (work, 1)
