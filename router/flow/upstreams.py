"""The connections to all replicas."""

from router.fleet.replicas import Replica
from router.flow.upstream import READ_BYTES, Upstream


class Upstreams:
    """The connections to every replica, made when first used."""

    def __init__(self, *, idle_s: float, connect_s: float, max_head_bytes: int, max_connections: int) -> None:
        self._max_connections = max_connections
        self._idle_s = idle_s
        self._connect_s = connect_s
        self._max_head_bytes = max_head_bytes
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._by_replica: dict[Replica, Upstream] = {}

    def of(self, replica: Replica) -> Upstream:
        upstream = self._by_replica.get(replica)
        if upstream is None:
            upstream = self._by_replica[replica] = Upstream(
                replica.identity.url,
                idle_s=self._idle_s,
                connect_s=self._connect_s,
                max_head_bytes=self._max_head_bytes,
                max_connections=self._max_connections,
                api_key=replica.identity.api_key,
                buffer=self._buffer,
            )
        return upstream

    def expire(self) -> None:
        for upstream in self._by_replica.values():
            upstream.expire()

    def close(self) -> None:
        for upstream in self._by_replica.values():
            upstream.close()
        self._by_replica.clear()

    @property
    def open_connections(self) -> int:
        return sum(upstream.open_connections for upstream in self._by_replica.values())
