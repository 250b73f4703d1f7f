"""The publisher's own rules; what a subscriber makes of it is tested with the subscriber."""

import asyncio
from pathlib import Path

import pytest

from loadtest.engine.kv_publisher import KvEventsConfig, KvPublisher, config_of, of_rank
from router.fleet.zmq_links import LinkError, Links
from tests.support.kv import publishing, stored
from tests.support.loops import run_strictly


def test_ranks_count_on_from_the_port() -> None:
    """Rank 0 has the endpoint itself."""
    assert of_rank("tcp://*:5557", 0) == "tcp://*:5557"
    assert of_rank("tcp://*:5557", 3) == "tcp://*:5560"
    assert of_rank("inproc://cache", 1) == "inproc://cache_dp1"


def test_the_real_ones_json() -> None:
    """Everything has a default but whether it is on."""
    assert config_of('{"enable_kv_cache_events":true}') == KvEventsConfig(enable_kv_cache_events=True)
    assert config_of('{"enable_kv_cache_events":false,"endpoint":"tcp://*:1"}') is None


def test_a_replay_is_what_was_asked_for_and_an_end(tmp_path: Path) -> None:
    """A question of another shape gets no answer."""

    async def run() -> None:
        async with publishing(tmp_path) as publisher:
            publisher.send(*map(stored, range(5)))
            links = Links()
            link = links.dealer(f"ipc://{tmp_path / 're'}", 100)
            await link.send((b"", b"much", b"too", b"long"))
            await link.send((b"", (3).to_bytes(8, "big")))
            answers = [await link.receive() for _ in range(3)]
            assert [frames[:3] for frames in answers] == [
                [b"", b"kv-events", (3).to_bytes(8, "big")],
                [b"", b"kv-events", (4).to_bytes(8, "big")],
                [b"", b"", b"\xff" * 8],
            ]
            assert [bool(frames[3]) for frames in answers] == [True, True, False]
            links.close()

    run_strictly(run())


def test_an_endpoint_in_use_is_told(tmp_path: Path) -> None:
    """On TCP; whoever opens it is told which."""

    async def run() -> None:
        links = Links()
        taken = links.publisher("tcp://127.0.0.1:*", 1, bind=True)
        port = taken._socket.getsockopt_string(links._zmq.LAST_ENDPOINT).rpartition(":")[2]
        second = KvPublisher(KvEventsConfig(endpoint=f"tcp://*:{port}"), 0, replays_topic=True)
        with pytest.raises(LinkError, match=port):
            second.open()
        second.close()
        second.close()
        links.close()

    asyncio.run(run())
