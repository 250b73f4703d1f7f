"""The attempt loop: choose and lease, send, wait for the outcome, and perhaps go round again.

Another attempt is made only while nothing has reached the client, never on the same replica, and all
attempts share one deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from policies.outcome import Ending
from policies.routing.events import Prompt
from router.api.errors import (
    EndpointNotSupported,
    NoHealthyReplica,
    Overloaded,
    QueueFull,
    UpstreamError,
)
from router.api.request import InferenceRequest
from router.api.tgi import GenerateReader
from router.engines.engine import Failure, UpstreamRequest
from router.fleet.decision import decision, header_of
from router.fleet.facts import Facts
from router.fleet.leases import Lease
from router.fleet.pools import Pool
from router.fleet.replicas import Replica
from router.flow.answer_relay import AnswerRelay, CollectRelay
from router.flow.call import Call, Limits
from router.flow.connection import Connection
from router.flow.queue import Queues
from router.flow.relay import Relay
from router.flow.stream_relay import StreamRelay
from router.flow.upstream import Upstream
from router.flow.upstreams import Upstreams
from router.flow.watch import Watch
from router.observe.events import Attempt

Answered = Callable[[Replica, InferenceRequest, Facts], None]
Settle = Callable[[Replica, float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Who is told, and asked, on the way of a request.

    `failed` hears of who did not do its part, `answered` of who answered; `make_room` is called when somebody
    has to wait for room. `settle` waits until it is known who answers at a replica that is doubted, and
    raises `UpstreamError` if it is not the one that it should be.
    """

    failed: Callable[[Replica], None]
    answered: Answered | None = None
    make_room: Callable[[Pool], None] | None = None
    settle: Settle | None = None


class Dispatcher:
    """Sends requests to replicas. Without `queues` saturated ones get more, up to their `max_in_flight`."""

    def __init__(
        self, limits: Limits, watch: Watch, upstreams: Upstreams, hooks: Hooks, queues: Queues | None = None
    ) -> None:
        self._limits = limits
        self._watch = watch
        self._upstreams = upstreams
        self._hooks = hooks
        self._queues = queues

    async def dispatch(self, call: Call) -> None:
        """Answer `call`, or raise the error that the client is to see."""
        route = call.route
        assert route is not None
        if route.fallback is None:
            failure = await self._rounds(call, self._limits.max_attempts)
        else:
            # One attempt: a bad version gets no more of its requests than are its share.
            failure = await self._rounds(call, 1)
            if failure is not None and failure.retry:
                call.reassign(route.fallback)
                failure = await self._rounds(call, call.tries + self._limits.max_attempts, failure)
        if failure is not None:
            raise failure.error

    async def _rounds(self, call: Call, most_tries: int, last: Failure | None = None) -> Failure | None:
        """Attempts in the pool of the call's route; None: the client has its answer, or has left.

        `last` is why another pool did not answer.
        """
        request, route = call.request, call.route
        assert request is not None
        assert route is not None
        pool = route.pool
        if self._limits.max_attempts > 1:
            pool.retries.earn()
        tried: list[Replica] = []
        call.facts = call.facts or pool.facts(request)
        waits = self._queues is not None
        while not call.exchange.disconnected:
            try:
                # Nobody overtakes those that wait; a second attempt has waited.
                lease = None if waits and pool.queued and not tried else self._choose(call, tried)
                if lease is None:
                    lease = await self._wait(call, pool)
            except (NoHealthyReplica, EndpointNotSupported, Overloaded, QueueFull) as error:
                return last if tried and last is not None else Failure(error, retry=True)
            if lease is None:
                return None
            call.replica = lease.replica
            tried.append(lease.replica)
            failure = await self._attempt(call, lease, last)
            if failure is None or call.error is not None:
                return None
            last = failure
            if not failure.retry or call.tries >= most_tries:
                return failure
            if call.tries and not pool.retries.spend(monotonic()):
                return failure
        return None

    def _choose(self, call: Call, tried: Sequence[Replica]) -> Lease | None:
        """Choose and lease, in one step. None: it is the first attempt, and it has to wait for room."""
        request, route, facts = call.request, call.route, call.facts
        assert request is not None
        assert route is not None
        assert facts is not None
        pool = route.pool
        waits = self._queues is not None and not tried
        if call.explains and not (waits and not pool.has_room(request)):
            call.decision = header_of(decision(route, request, facts, tried))
        if waits:
            return pool.lease_with_room(request, facts, monotonic())
        return pool.lease(request, facts, monotonic(), tried)

    async def _wait(self, call: Call, pool: Pool) -> Lease | None:
        """Wait in line for a lease; None: the client has left."""
        assert self._queues is not None
        if self._hooks.make_room is not None:
            self._hooks.make_room(pool)
        return await self._queues.enter(pool, call, lambda: self._choose(call, ()))

    async def _attempt(self, call: Call, lease: Lease, before: Failure | None) -> Failure | None:
        """One attempt on a leased replica; None: the client has its answer, or has left."""
        relay: Relay | None = None
        try:
            request = _request_for(call, lease.replica)
            upstream_request = lease.replica.engine.to_upstream(request)
            call.tries += 1
            relay = self._relay(call, lease, request, streams=upstream_request.streams)
            await self._send(relay, upstream_request)
            if relay.stale and not call.exchange.disconnected:
                relay = self._relay(call, lease, request, streams=upstream_request.streams)
                await self._send(relay, upstream_request, fresh=True)
            return relay.failure
        except EndpointNotSupported as refusal:
            # Only the adapter could see it: another engine of the pool may well take this request.
            return Failure(refusal, retry=True)
        finally:
            self._close(call, lease, relay, before)

    def _close(self, call: Call, lease: Lease, relay: Relay | None, before: Failure | None) -> None:
        if relay is None:
            lease.close(None, monotonic())
            return
        outcome = relay.outcome()
        assert call.route is not None
        assert call.request is not None
        call.route.pool.sizes.learn(outcome, call.request.n)
        lease.close(outcome, outcome.ended_at, _answer(call, lease, relay))
        call.delivered = outcome.ending, relay.pieces
        call.attempts.append(_record(lease, relay, before))
        if outcome.blames_replica:
            self._hooks.failed(lease.replica)
        elif self._hooks.answered is not None and outcome.ending is Ending.COMPLETED:
            assert call.facts is not None
            self._hooks.answered(lease.replica, call.request, call.facts)

    def _relay(self, call: Call, lease: Lease, request: InferenceRequest, *, streams: bool) -> Relay:
        if not streams:
            return AnswerRelay(call, lease, self._limits, self._watch, request)
        reader = lease.replica.engine.open_stream(request)
        if not request.stream:
            return CollectRelay(call, lease, self._limits, self._watch, request, reader)
        original = call.request
        if original is not None and original is not request:
            reader = GenerateReader(original, reader)
        return StreamRelay(call, lease, self._limits, self._watch, reader)

    async def _send(self, relay: Relay, request: UpstreamRequest, *, fresh: bool = False) -> None:
        """Send and wait for the end. `fresh`: not over a kept connection."""
        upstream = self._upstreams.of(relay.lease.replica)
        headers = _header_lines(relay.call, request)
        content = upstream.request(request.path, request.body, streams=request.streams, headers=headers)
        connection = None if fresh else upstream.idle_connection()
        if connection is None:
            began = monotonic()
            try:
                connection = await asyncio.ensure_future(self._connect(upstream, relay.lease.replica))
            except (UpstreamError, Overloaded) as error:
                relay.fail(Failure(error, retry=True, saturated=isinstance(error, Overloaded)))
                return
            finally:
                relay.call.waited_s += monotonic() - began
        if relay.call.exchange.disconnected:
            connection.abort()
            relay.client_left()
            return
        relay.launch(connection, content)
        try:
            await relay.finished
        except asyncio.CancelledError:
            relay.client_left()
            raise

    async def _connect(self, upstream: Upstream, replica: Replica) -> Connection:
        """A new connection, to a process that is known. Raises what `Upstream.connect` raises.

        Whoever accepts it may have begun since the replica was verified; a kept one leads to the same process
        as before.
        """
        connection = await upstream.connect()
        settle = self._hooks.settle
        if settle is not None and (replica.doubted or not replica.verdict.verified):
            try:
                await settle(replica, self._limits.connect_s)
            except BaseException:
                connection.abort()
                raise
        return connection


def _request_for(call: Call, replica: Replica) -> InferenceRequest:
    request = call.request
    assert request is not None
    if request.needs <= replica.offers or request.fallback is None:
        return request
    return request.fallback


def _answer(call: Call, lease: Lease, relay: Relay) -> Prompt | None:
    """Prompt and answer together, where the answer came whole and somebody wants to know."""
    if relay.whole is None or call.facts is None or not lease.wants_answer:
        return None
    return call.facts.answered(relay.whole)


def _header_lines(call: Call, request: UpstreamRequest) -> bytes:
    # A suffix per attempt: vLLM wants ids of running requests to differ, also between two attempts.
    lines = b"x-request-id: %b-%d\r\n" % (call.id.encode("latin-1"), call.tries)
    traceparent = call.exchange.headers.get("traceparent")
    if traceparent is not None:
        lines += b"traceparent: %b\r\n" % traceparent.encode("latin-1")
    for name, value in request.headers:
        lines += b"%b: %b\r\n" % (name.encode("latin-1"), value.encode("latin-1"))
    return lines


def _record(lease: Lease, relay: Relay, before: Failure | None) -> Attempt:
    until = relay.decided_at if relay.decided_at is not None else monotonic()
    return Attempt(
        replica=lease.replica.id,
        reason="first" if before is None else before.error.code,
        ending=relay.ending.word,
        wait_s=until - relay.sent_at if relay.sent_at else 0.0,
    )
