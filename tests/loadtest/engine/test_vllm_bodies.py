import json

import pytest

from loadtest.engine.dialect import Refusal, Request
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_errors import VllmError
from loadtest.engine.vllm_request import ChatRequest


def posted(body: bytes, content_type: str = "application/json; charset=utf-8") -> Request:
    return Request("POST", "/", {}, {"content-type": content_type}, body)


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        (b"", "missing", "body"),
        (b"[1]", "model_attributes_type", "body"),
        (b"{", "json_invalid", "body.1"),
        (b"{}", "missing", "body.messages"),
        (b'{"messages": 3}', "list_type", "body.messages"),
        (b'{"messages": [], "n": "x"}', "int_parsing", "body.n"),
        (b'{"messages": [], "temperature": "x"}', "float_parsing", "body.temperature"),
        (b'{"messages": [], "stream": "maybe"}', "bool_parsing", "body.stream"),
        (b'{"messages": [], "stop": 3}', "string_type", "body.stop"),
        (b'{"messages": [], "stream": true, "stream_options": {"include_usage": 7}}', "bool_parsing", None),
    ],
)
def test_bodies_of_the_wrong_form(body: bytes, kind: str, param: str | None) -> None:
    """Each mistake by pydantic's name for it, and where it is."""
    with pytest.raises(VllmError) as caught:
        decode_body(posted(body), ChatRequest)
    error = json.loads(caught.value.response.body)["error"]
    assert (error["code"], error["type"]) == (400, "Bad Request")
    assert error["message"].startswith(f"1 validation error:\n  {{'type': '{kind}', 'loc': 'body")
    assert param is None or error["param"] == param


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_only_json_by_its_type(content_type: str) -> None:
    """Whatever the body is."""
    with pytest.raises(VllmError):
        decode_body(posted(b'{"messages": []}', content_type), ChatRequest)


def test_numbers_may_be_written_as_text() -> None:
    """As pydantic reads them."""
    request = decode_body(posted(b'{"messages": [], "n": "2", "temperature": "0.5"}'), ChatRequest)
    assert (request.n, request.temperature) == (2, 0.5)


def test_bytes_that_are_no_text() -> None:
    """FastAPI's own words, not vLLM's."""
    with pytest.raises(Refusal) as caught:
        decode_body(posted(b'{"messages": ["\xff"]}'), ChatRequest)
    assert json.loads(caught.value.response.body) == {"detail": "There was an error parsing the body"}
