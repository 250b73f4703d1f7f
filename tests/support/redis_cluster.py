"""A Redis Cluster of real servers on loopback, where `redis-server` is installed."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep

import redis

REDIS_SERVER = shutil.which("redis-server")
SLOTS = 16384


class ClusterNode:
    """One server; `kill` ends it as a crash does."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        assert REDIS_SERVER is not None
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "cluster-enabled": "yes",
            "cluster-node-timeout": 1000,
            "cluster-replica-validity-factor": 0,
            "save": "",
            "appendonly": "no",
            "dir": str(folder),
            "cluster-config-file": f"nodes-{port}.conf",
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([REDIS_SERVER, *words], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=port, decode_responses=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def id(self) -> str:
        return str(self.client.execute_command("CLUSTER", "MYID"))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()


@contextlib.contextmanager
def redis_cluster(masters: int = 3, replicas: int = 0) -> Iterator[Sequence[ClusterNode]]:
    """The masters share the slots evenly, in their order; replica i, after them, is of master i."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        nodes = []
        for port in free_ports(masters + replicas):
            nodes.append(ClusterNode(port, Path(folder)))
            stack.callback(nodes[-1].close)
        for node in nodes:
            wait_until(node.client.ping)
        for index, node in enumerate(nodes[:masters]):
            first, last = index * SLOTS // masters, (index + 1) * SLOTS // masters - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        for node in nodes[masters:]:
            nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        for node in nodes:
            wait_until(
                lambda node=node: node.client.cluster("info")["cluster_known_nodes"] == str(len(nodes))
            )
        for master, node in zip(nodes, nodes[masters:], strict=False):
            node.client.execute_command("CLUSTER", "REPLICATE", master.id)
            wait_until(lambda node=node: node.client.info("replication")["master_link_status"] == "up")
        for node in nodes:
            wait_until(lambda node=node: node.client.cluster("info")["cluster_state"] == "ok")
        yield nodes


def free_ports(count: int) -> Sequence[int]:
    """Ports whose bus ports, 10,000 above, are free as well."""
    found: list[int] = []
    for port in range(21_000 + os.getpid() % 1000 * 8, 32_000):
        if len(found) == count:
            break
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 10_000))
            found.append(port)
    return found


def wait_until(condition: object, timeout_s: float = 20.0) -> None:
    """For servers that start: an error of theirs is a not yet."""
    assert callable(condition)
    until = monotonic() + timeout_s
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        assert monotonic() < until, "a server of the cluster did not get ready"
        sleep(0.05)
