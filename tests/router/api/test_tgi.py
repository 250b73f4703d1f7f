"""TGI's requests as other engines see them, and their answers as TGI's clients do."""

from typing import Any

import msgspec
import pytest

from router.api.errors import BodyTooLarge, Overloaded, RequestError, UpstreamError
from router.api.openai import RequestRules
from router.api.request import Endpoint, InferenceRequest, Usage
from router.api.tgi import DEFAULT_NEW_TOKENS, GenerateReader, generate_error, read_generate, translate_answer
from router.engines.engine import Answer, Failure
from router.engines.sse import DONE, frame_of

JSON = {"content-type": "application/json"}
ROOT, GENERATE, STREAM = Endpoint.GENERATE_ROOT, Endpoint.GENERATE, Endpoint.GENERATE_STREAM


def asked(endpoint: Endpoint = GENERATE, **members: Any) -> InferenceRequest:
    body = msgspec.json.encode({"inputs": "p", **members})
    return read_generate(endpoint, "id", JSON, body, RequestRules(), "m")


def completion(**members: Any) -> InferenceRequest:
    fallback = asked(**members).fallback
    assert fallback is not None
    return fallback


def answer(text: str = " said", **more: Any) -> Answer:
    body = {"choices": [{"text": text}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}, **more}
    return Answer(msgspec.json.encode(body), Usage(1, 2), "length")


def translated(original: InferenceRequest, given: Answer) -> Any:
    result = translate_answer(original, given)
    assert isinstance(result, Answer)
    return msgspec.json.decode(result.body)


@pytest.mark.parametrize(
    ("endpoint", "flag", "stream"),
    [
        (GENERATE, None, False),
        (GENERATE, True, False),
        (STREAM, None, True),
        (STREAM, False, True),
        (ROOT, None, False),
        (ROOT, True, True),
    ],
)
def test_the_path_decides_on_a_stream_but_at_the_root(
    endpoint: Endpoint, flag: bool | None, stream: bool
) -> None:
    """There the body says."""
    request = asked(endpoint, stream=flag)
    assert (request.endpoint, request.stream) == (endpoint, stream)


@pytest.mark.parametrize(("parameters", "limit"), [({}, DEFAULT_NEW_TOKENS), ({"max_new_tokens": 5}, 5)])
def test_the_limit_is_said_to_every_engine(parameters: dict[str, int], limit: int) -> None:
    """In the body for those who get it, and apart from it for those whose body is made anew."""
    fallback = completion(parameters=parameters)
    assert (fallback.max_tokens, msgspec.json.decode(fallback.body)["max_tokens"]) == (limit, limit)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "many"])
def test_a_limit_that_cannot_be(limit: object) -> None:
    with pytest.raises(RequestError) as raised:
        asked(parameters={"max_new_tokens": limit})
    assert raised.value.param == "max_new_tokens"


@pytest.mark.parametrize("inputs", [None, 7, ["p"]])
def test_inputs_that_are_no_text(inputs: object) -> None:
    """The field is named."""
    with pytest.raises(RequestError) as raised:
        asked(inputs=inputs)
    assert raised.value.param == "inputs"


@pytest.mark.parametrize(
    ("parameters", "temperature"),
    [
        ({}, 0),
        ({"do_sample": True}, 1),
        ({"temperature": 0.5}, 0.5),
        ({"top_p": 0.9}, 1),
        ({"top_k": 5, "do_sample": False}, 1),
        ({"temperature": 1.0, "top_k": 0, "top_p": 1.0}, 0),
        ({"temperature": None, "top_p": None}, 0),
    ],
)
def test_greedy_unless_something_asks_for_sampling(parameters: dict[str, Any], temperature: float) -> None:
    """TGI's rule, which is not OpenAI's: any of them does, unless it stands where it means nothing."""
    assert msgspec.json.decode(completion(parameters=parameters).body)["temperature"] == temperature


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p"])
def test_a_number_that_is_none(name: str) -> None:
    """The field is named."""
    with pytest.raises(RequestError) as raised:
        asked(parameters={name: "much"})
    assert raised.value.param == name


@pytest.mark.parametrize(
    "body", [b'{"inputs":"\\ud800"}', b'{"inputs":"\\x"}', b"{}", b'{"inputs":"p","parameters":7}']
)
def test_requests_that_cannot_be_read(body: bytes) -> None:
    """Lone surrogates and broken escapes too: found out now, not when the prompt is needed."""
    with pytest.raises(RequestError):
        read_generate(GENERATE, "id", JSON, body, RequestRules(), "m")


def test_which_model_is_meant() -> None:
    """The only one, unless the body names another; with several it has to."""
    assert asked().model == "m"
    assert asked(model="n").model == "n"
    with pytest.raises(RequestError) as raised:
        read_generate(GENERATE, "id", JSON, b'{"inputs":"p"}', RequestRules(), None)
    assert raised.value.param == "model"


@pytest.mark.parametrize(
    "parameters",
    [
        {"grammar": {"type": "regex", "value": "a"}},
        {"best_of": 2},
        {"top_n_tokens": 3},
        {"truncate": 9},
        {"watermark": True},
        {"adapter_id": "a"},
        {"typical_p": 0.5},
    ],
)
def test_what_only_tgi_can_do_has_no_other_form(parameters: dict[str, Any]) -> None:
    assert asked(parameters=parameters).fallback is None


def test_what_old_clients_always_send_is_no_obstacle() -> None:
    """Nulls, and values that mean nothing."""
    parameters: dict[str, Any] = {
        "best_of": None,
        "watermark": False,
        "decoder_input_details": False,
        "details": True,
        "stop": [],
    }
    assert msgspec.json.decode(completion(parameters=parameters).body).keys() == {
        "model", "prompt", "max_tokens", "temperature", "stop",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "parameters", "expected"),
    [
        (GENERATE, {}, {"generated_text": " said"}),
        (GENERATE, {"return_full_text": True}, {"generated_text": "p said"}),
        (ROOT, {}, [{"generated_text": "p said"}]),
        (ROOT, {"return_full_text": None}, [{"generated_text": "p said"}]),
        (ROOT, {"return_full_text": False}, [{"generated_text": " said"}]),
    ],
)
def test_the_root_answers_a_list_and_the_full_text(
    endpoint: Endpoint, parameters: dict[str, Any], expected: object
) -> None:
    """As TGI's `compat_generate` does."""
    assert translated(asked(endpoint, parameters=parameters), answer()) == expected


@pytest.mark.parametrize(("usage", "generated"), [({"completion_tokens": 7}, 7), (None, 0)])
def test_details_count_what_the_answer_states(usage: object, generated: int) -> None:
    """An estimate too: it is all that there is."""
    details = translated(asked(parameters={"details": True}), answer(usage=usage))["details"]
    assert (details["generated_tokens"], details["finish_reason"]) == (generated, "length")
    assert (details["prefill"], details["tokens"]) == ([], [])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"text":7}]}',
        b'{"choices":[null]}',
    ],
)
def test_an_answer_without_text_is_a_failure(body: bytes) -> None:
    """Of the replica, so that another one may be asked."""
    failure = translate_answer(asked(), Answer(body))
    assert isinstance(failure, Failure)
    assert (failure.error.code, failure.retry) == ("upstream_protocol", True)


# ---- streams ----


class Inner:
    """A reader of completions that hands out what a test tells it to."""

    def __init__(self) -> None:
        self.started = self.done = False
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.pieces = 0

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


def chunks(*texts: str) -> bytes:
    return b"".join(
        frame_of(msgspec.json.encode({"choices": [{"index": 0, "text": text}]})) for text in texts
    )


def events(data: bytes) -> list[dict[str, Any]]:
    frames = data.split(b"\n\n")
    assert frames.pop() == b""
    return [msgspec.json.decode(frame.removeprefix(b"data: ")) for frame in frames]


def reading(**parameters: Any) -> tuple[GenerateReader, Inner]:
    inner = Inner()
    return GenerateReader(asked(STREAM, parameters=parameters), inner), inner


def test_every_piece_is_an_event() -> None:
    """Numbered from 1; chunks without text, and those of usage alone, are none."""
    reader, _ = reading()
    assert not reader.started
    said = events(reader.feed(chunks("one", "", " two") + frame_of(b'{"choices":[],"usage":{}}')))
    assert [(event["index"], event["token"]["text"]) for event in said] == [(1, "one"), (2, " two")]
    for event in said:
        assert event.keys() == {"index", "token", "generated_text", "details"}
        assert event["token"].keys() == {"id", "text", "logprob", "special"}
        assert (event["generated_text"], event["details"], event["token"]["special"]) == (None, None, False)
    assert (reader.started, reader.done, reader.pieces) == (True, False, 2)


@pytest.mark.parametrize(
    ("finish", "word"), [("stop", "eos_token"), ("length", "length"), (None, "eos_token")]
)
def test_the_last_event_has_the_whole_text(finish: str | None, word: str) -> None:
    """In the place of `[DONE]`, once, with the details that were asked for."""
    reader, inner = reading(details=True, return_full_text=True)
    reader.feed(chunks(" one"))
    inner.done, inner.finish_reason, inner.usage = True, finish, Usage(3, 7)
    first, last = events(reader.feed(chunks(" two") + frame_of(DONE)))
    assert first["token"]["text"] == " two"
    assert (last["generated_text"], last["index"], last["token"]["special"]) == ("p one two", 3, True)
    assert last["details"] == {"finish_reason": word, "generated_tokens": 7, "seed": None, "input_length": 3}
    assert (reader.done, reader.usage, reader.finish_reason) == (True, Usage(3, 7), finish)
    assert reader.end() == b""


def test_an_end_without_a_word_of_text() -> None:
    """The last event comes all the same, and begins the client's stream; without details if none were wanted."""
    reader, inner = reading()
    inner.done = True
    (last,) = events(reader.end())
    assert (last["generated_text"], last["details"], reader.started) == ("", None, True)


def test_a_failure_ends_it_without_a_last_event() -> None:
    """What came before it is still handed out."""
    reader, inner = reading()
    inner.failure = Failure(UpstreamError("no"), retry=True)
    assert len(events(reader.feed(chunks("one")))) == 1
    assert (reader.failure, reader.done) == (inner.failure, False)
    inner.done = True
    assert reader.end() == b""


@pytest.mark.parametrize(
    "data", [b"{}", b"[]", b'{"choices":[{}]}', b'{"choices":[{"text":7}]}', b'{"choices":7}']
)
def test_a_chunk_without_text_is_a_failure(data: bytes) -> None:
    """Of the replica; nothing comes after it."""
    reader, inner = reading()
    assert reader.feed(frame_of(data)) == b""
    assert reader.failure is not None
    assert reader.failure.error.code == "upstream_protocol"
    inner.done = True
    assert reader.feed(chunks("more")) == reader.end() == b""
    assert not reader.done


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (RequestError("no"), "validation"),
        (BodyTooLarge("no"), "validation"),
        (Overloaded("no"), "overloaded"),
        (UpstreamError("no"), "generation"),
    ],
)
def test_errors_carry_tgis_word_too(error: Any, word: str) -> None:
    """Beside the contract's object; TGI's clients choose their exception by it."""
    members = msgspec.json.decode(generate_error(error))
    assert members["error_type"] == word
    assert members["error"]["code"] == error.code
