"""A complete answer, kept until it is known to be good, so that it can still be had elsewhere."""

from time import monotonic

from router.api.errors import UpstreamProtocol
from router.api.request import InferenceRequest
from router.api.tgi import translate_answer
from router.engines.engine import Answer, Failure, StreamReader
from router.engines.openai_stream import StreamCollector
from router.fleet.leases import Lease
from router.flow.call import JSON, Call, Limits
from router.flow.relay import NOT_UTF8, Relay, is_utf8
from router.flow.watch import Watch


class AnswerRelay(Relay):
    """A complete answer for a client that wants it whole; kept until it is, so that it can be retried.

    `request` is what was sent: the client's, or its translation for this engine.
    """

    __slots__ = ("_request",)

    def __init__(
        self, call: Call, lease: Lease, limits: Limits, watch: Watch, request: InferenceRequest
    ) -> None:
        super().__init__(call, lease, limits, watch)
        self._request = request

    def take(self, data: bytes) -> None:
        self.keep(data)
        limit = self.limits.max_answer_bytes
        if self._kept_bytes > limit:
            error = UpstreamProtocol(f"the replica's answer is larger than {limit} bytes")
            self.fail(Failure(error, retry=False))

    def ended(self) -> None:
        self.deliver(self.lease.replica.engine.read_answer(self._request, self.kept()))

    def deliver(self, answer: Answer | Failure) -> None:
        call = self.call
        if isinstance(answer, Answer) and call.request is not None and call.request is not self._request:
            answer = translate_answer(call.request, answer)
        if isinstance(answer, Failure):
            self.fail(answer)
            return
        if not is_utf8(answer.body):
            self.fail(NOT_UTF8)
            return
        now = monotonic()
        self.decide(now)
        self.whole = answer.body
        call.usage = answer.usage
        call.finish_reason = answer.finish_reason
        call.begin(200, (JSON,), len(answer.body), now)
        call.exchange.write(answer.body)
        if call.transcript is not None:
            call.transcript.keep(answer.body)
        if call.witness is not None:
            call.witness.keep(answer.body)
        call.finish()
        self.settle()


class CollectRelay(AnswerRelay):
    """A whole answer, made of a stream: for engines that should only be asked for streams."""

    __slots__ = ("_collector",)

    def __init__(
        self,
        call: Call,
        lease: Lease,
        limits: Limits,
        watch: Watch,
        request: InferenceRequest,
        reader: StreamReader,
    ) -> None:
        super().__init__(call, lease, limits, watch, request)
        self._collector = StreamCollector(request, reader)

    def keep(self, data: bytes) -> None:
        if self._status != 200:
            super().keep(data)
            return
        self._kept_bytes += len(data)
        self._collector.feed(data)
        if self._collector.failure is not None:
            self.fail(self._collector.failure)

    def ended(self) -> None:
        self._collector.end()
        failure = self._collector.failure
        self.deliver(self._collector.answer() if failure is None else failure)
