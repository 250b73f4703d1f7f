"""The connections to all replicas."""

from collections.abc import Collection

from router.fleet.replicas import Replica
from router.flow.upstream import READ_BYTES, Keeping, Upstream


class Upstreams:
    """The connections to every replica, made when first used."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._by_replica: dict[Replica, Upstream] = {}

    def of(self, replica: Replica) -> Upstream:
        upstream = self._by_replica.get(replica)
        if upstream is None:
            identity = replica.identity
            upstream = self._by_replica[replica] = Upstream(
                identity.url, self._keeping, api_key=identity.api_key, buffer=self._buffer
            )
        return upstream

    def renew(self, keeping: Keeping) -> None:
        """For all that is opened from now on."""
        self._keeping = keeping
        for upstream in self._by_replica.values():
            upstream.keeping = keeping

    def keep(self, replicas: Collection[Replica]) -> None:
        """Of all others close what is idle, and forget them with their last request."""
        for replica in self._by_replica.keys() - set(replicas):
            upstream = self._by_replica[replica]
            upstream.expire(0.0)
            if not upstream.busy:
                del self._by_replica[replica]

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
