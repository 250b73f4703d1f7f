"""A request of which only the prompt matters: one replica is asked for a single token, which nobody wants."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from policies.outcome import Ending, Outcome
from router.api.errors import Overloaded, UpstreamError, UpstreamProtocol
from router.api.ids import RequestIds
from router.api.members import write_members
from router.api.request import InferenceRequest, Usage
from router.engines.collector import StreamCollector
from router.engines.engine import Answer, Failure, UpstreamRequest
from router.engines.failures import read_failure
from router.fleet.facts import Facts
from router.fleet.pools import Pool
from router.fleet.replicas import Replica
from router.flow.relay import ending_of
from router.flow.upstreams import Upstreams

_MAX_ANSWER_BYTES: Final = 1024 * 1024
_TOKEN: Final = {"max_tokens": Raw(b"1"), "stream": Raw(b"false")}
_DROPPED: Final = frozenset({
    "best_of", "echo", "logprobs", "max_completion_tokens", "min_tokens", "n", "prompt_logprobs",
    "response_format", "stream_options", "top_logprobs", "use_beam_search",
})  # fmt: skip
"""What asks for more than a token, or for more about it; none of it changes the prompt."""
_NOT_NEEDED: Final = frozenset(
    {"best_of", "echo", "json_object", "json_schema", "logprobs", "n", "prompt_logprobs"}
)


def one_token(request: InferenceRequest) -> InferenceRequest:
    """The same prompt for the same tenant, and one token of an answer."""
    kept = {name: raw for name, raw in request.members.items() if name not in _DROPPED}
    members = kept | _TOKEN
    return replace(
        request,
        stream=False,
        include_usage=False,
        n=1,
        max_tokens=1,
        needs=request.needs - _NOT_NEEDED,
        members=members,
        body=write_members(members),
    )


class OneTokenAsker:
    """Asks outside all client traffic; the lease tells policies and other workers of it as of any request.

    `failed` is told of each replica that did not do its part.
    """

    def __init__(self, upstreams: Upstreams, timeout_s: float, failed: Callable[[Replica], None]) -> None:
        self._upstreams = upstreams
        self._timeout_s = timeout_s
        self._failed = failed
        self._ids = RequestIds()

    async def ask(self, pool: Pool, replica: Replica, request: InferenceRequest, facts: Facts) -> Ending:
        """`request` is one that `one_token` made. Raises `TurnoutError` if this engine cannot do it."""
        upstream_request = replica.engine.to_upstream(request)
        lease = pool.lease_on(replica, request, facts, monotonic())
        sent_at = monotonic()
        ending, usage = Ending.CLIENT_LEFT, None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._exchange(replica, request, upstream_request)
            ending = Ending.COMPLETED if isinstance(answer, Answer) else ending_of(answer)
            usage = answer.usage if isinstance(answer, Answer) else None
        except TimeoutError:
            ending = Ending.TIMED_OUT
        except Overloaded:
            ending = Ending.SATURATED
        except UpstreamError:
            ending = Ending.FAILED
        finally:
            outcome = _outcome(ending, sent_at, usage)
            lease.close(outcome, outcome.ended_at)
        if outcome.blames_replica:
            self._failed(replica)
        return ending

    async def _exchange(
        self, replica: Replica, request: InferenceRequest, sent: UpstreamRequest
    ) -> Answer | Failure:
        upstream = self._upstreams.of(replica)
        headers = b"x-request-id: %b\r\n" % self._ids.of(None).encode()
        for name, value in sent.headers:
            headers += b"%b: %b\r\n" % (name.encode("latin-1"), value.encode("latin-1"))
        # Kept connections may lead to the process that was there before.
        connection = await upstream.connect()
        whole = _Whole()
        try:
            connection.send(
                upstream.request(sent.path, sent.body, streams=sent.streams, headers=headers), whole
            )
            await whole.complete_or_broken
        except BaseException:
            connection.abort()
            raise
        if whole.status != 200:
            return read_failure(replica.engine.kind, whole.status, whole.content_type, bytes(whole.body))
        if not sent.streams:
            return replica.engine.read_answer(request, bytes(whole.body))
        collector = StreamCollector(request, replica.engine.open_stream(request))
        collector.feed(bytes(whole.body))
        collector.end()
        return collector.failure or collector.answer()


class _Whole:
    """A `Receiver` of one small answer."""

    def __init__(self) -> None:
        self.complete_or_broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.content_type = ""
        self.body = bytearray()

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status
        self.content_type = headers.get(b"content-type", b"").decode("latin-1")

    def data(self, data: bytes) -> None:
        self.body += data
        if len(self.body) > _MAX_ANSWER_BYTES:
            self.broken(UpstreamProtocol("the replica's answer of one token has no end"))

    def complete(self) -> None:
        if not self.complete_or_broken.done():
            self.complete_or_broken.set_result(None)

    def broken(self, error: UpstreamError) -> None:
        if not self.complete_or_broken.done():
            self.complete_or_broken.set_exception(error)


def _outcome(ending: Ending, sent_at: float, usage: Usage | None) -> Outcome:
    """Without the one token: nobody's answers are as short as this."""
    return Outcome(
        ending=ending,
        sent_at=sent_at,
        first_token_at=None,
        ended_at=monotonic(),
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        cached_tokens=None if usage is None else usage.cached_tokens,
    )
