"""Triton with the TensorRT-LLM backend: text in, text out, through its generate extension.

It is only ever asked for streams: the server notices that a client of a complete answer left only when the
answer is ready (triton-inference-server/server#7077).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

import msgspec

from router.api.request import InferenceRequest
from router.engines.chat_template import ChatTemplate
from router.engines.collector import StreamCollector
from router.engines.engine import Answer, Failure, StreamReader, Target, UpstreamRequest
from router.engines.openai_chunks import Chunks
from router.engines.openai_stream import OpenAIStream
from router.engines.sse import frame_of
from router.engines.triton_events import TextOutput, TritonEvents
from router.engines.triton_request import Layout, generate_members, prompt_of

DEFAULT_MODEL: Final = "ensemble"
_LLMAPI_MODEL: Final = "tensorrt_llm"


@dataclass(frozen=True, slots=True)
class Triton:
    """One text prompt, one choice, text only; chats where the target has a chat template.

    Raises `ValueError` for a template that is no Jinja. `clock` gives Unix seconds, for `created`.
    """

    target: Target
    clock: Callable[[], float] = time.time
    kind: str = "triton"
    offers: frozenset[str] = field(init=False)
    caches_answers: bool = True
    _template: ChatTemplate | None = field(init=False)
    _layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        source = self.target.chat_template
        object.__setattr__(self, "_template", ChatTemplate(source) if source else None)
        object.__setattr__(self, "offers", frozenset({"completions"} | ({"chat"} if source else set())))
        object.__setattr__(self, "_layout", _layout_of(self.target))

    def to_upstream(self, request: InferenceRequest) -> UpstreamRequest:
        model = quote(self.target.model_name or DEFAULT_MODEL, safe="")
        members = generate_members(request, prompt_of(request, self._template), self._layout)
        return UpstreamRequest(
            f"/v2/models/{model}/generate_stream", msgspec.json.encode(members), streams=True
        )

    def open_stream(self, request: InferenceRequest) -> StreamReader:
        chunks = Chunks(request, self.target.public_name, estimates_usage=True, created=int(self.clock()))
        output = self.target.output
        text = TextOutput(
            mode=None if output == "auto" else output,
            likely="cumulative" if self._layout == "llmapi" else "delta",
        )
        return OpenAIStream(chunks, self.kind, TritonEvents(chunks, text))

    def read_answer(self, request: InferenceRequest, body: bytes) -> Answer | Failure:
        """A complete answer of `/generate` reads like a stream of one event."""
        collector = StreamCollector(request, self.open_stream(request))
        collector.feed(frame_of(body.replace(b"\n", b" ")))
        collector.end()
        return collector.failure or collector.answer()


def _layout_of(target: Target) -> Layout:
    """`auto` goes by the name of the model: the LLM API's repository has one, `tensorrt_llm`."""
    if target.layout != "auto":
        return target.layout
    return "llmapi" if target.model_name == _LLMAPI_MODEL else "ensemble"
