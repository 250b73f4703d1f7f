"""A complete answer made of a stream, for engines that should only be asked for streams."""

from typing import Any

import msgspec

from router.api.request import Endpoint, InferenceRequest, Usage
from router.engines.engine import Answer, Failure, StreamReader
from router.engines.openai_words import OBJECTS
from router.engines.sse import DONE, FrameSplitter, read_event


class StreamCollector:
    """A `StreamReader` around another one: it keeps the frames, and makes one `Answer` of them at the end."""

    def __init__(self, request: InferenceRequest, reader: StreamReader) -> None:
        self._request = request
        self._reader = reader
        self._splitter = FrameSplitter()
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    @property
    def started(self) -> bool:
        return self._reader.started

    @property
    def done(self) -> bool:
        return self._reader.done

    @property
    def failure(self) -> Failure | None:
        return self._reader.failure

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage

    @property
    def finish_reason(self) -> str | None:
        return self._reader.finish_reason

    @property
    def pieces(self) -> int:
        return self._reader.pieces

    def feed(self, data: bytes) -> bytes:
        """Always empty: nothing goes out before the answer is complete."""
        self._take(self._reader.feed(data))
        return b""

    def end(self) -> bytes:
        self._take(self._reader.end())
        return b""

    def answer(self) -> Answer:
        """The complete chat or completion; to be called after `end`, without a `failure`."""
        body = {
            **self._head,
            "object": OBJECTS[self._request.endpoint],
            "choices": [_said(self._choices[index]) for index in sorted(self._choices)],
        }
        if "usage" in body:
            body["usage"] = body.pop("usage")
        return Answer(msgspec.json.encode(body), self.usage, self.finish_reason)

    def _take(self, frames: bytes) -> None:
        for frame in self._splitter.feed(frames):
            event = read_event(frame)
            if event is not None and event.data != DONE:
                self._merge(msgspec.json.decode(event.data))

    def _merge(self, chunk: dict[str, Any]) -> None:
        for choice in chunk.pop("choices"):
            index = choice["index"]
            whole = self._choices.setdefault(index, _empty_choice(self._request.endpoint, index))
            _join(whole.get("message", {}), choice.pop("delta", {}))
            _join(whole, choice)
        self._head |= {name: value for name, value in chunk.items() if value is not None}


def _empty_choice(endpoint: Endpoint, index: int) -> dict[str, Any]:
    if endpoint is Endpoint.CHAT:
        return {"index": index, "message": {"role": "assistant", "content": None}, "logprobs": None}
    return {"index": index, "text": "", "logprobs": None}


def _said(choice: dict[str, Any]) -> dict[str, Any]:
    """An answer without a word is an empty text; only tool calls stand without one."""
    message = choice.get("message")
    if message is not None and message["content"] is None and not message.get("tool_calls"):
        message["content"] = ""
    return choice


def _join(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a piece: text and lists grow, objects are joined, tool calls by their index."""
    for name, value in part.items():
        before = whole.get(name)
        if value is None or name in ("index", "role"):
            whole.setdefault(name, value)
        elif name == "tool_calls":
            whole[name] = _joined_calls(before or [], value)
        elif name in ("finish_reason", "type", "id") or before is None:
            whole[name] = value
        elif isinstance(value, str):
            whole[name] = before + value
        elif isinstance(value, list):
            whole[name] = [*before, *value]
        elif isinstance(value, dict):
            _join(before, value)
        else:
            whole[name] = value


def _joined_calls(calls: list[dict[str, Any]], parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_index = {call["index"]: call for call in calls}
    for part in parts:
        _join(by_index.setdefault(part["index"], {"index": part["index"]}), part)
    return [by_index[index] for index in sorted(by_index)]
