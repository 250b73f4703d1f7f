"""A worker's parts together: what others tell moves those that it concerns."""

import asyncio
from pathlib import Path

from policies.routing.events import Forgotten
from router.compose import Router
from router.config.decode import decode
from router.control.datagrams import DatagramChannel
from router.control.membership import Seat
from router.control.messages import Member
from tests.support.kv import BLOCK, places, publishing, stored
from tests.support.loops import run_strictly
from tests.support.routers import config_text
from tests.support.scripted_server import until
from tests.support.sharing import Peer
from tests.support.tokenizers import write_tokenizer


def test_a_restart_that_another_found_is_looked_into(tmp_path: Path) -> None:
    """What the engine's publisher said unheard is asked for at once, not with its next batch."""
    write_tokenizer(tmp_path / "tok")
    endpoint, replay = places(tmp_path)
    events = f'endpoint = "{endpoint}", replay_endpoint = "{replay}", topic = "kv-events"'
    text = config_text(
        f'url = "http://127.0.0.1:9", engine = "vllm", id = "a", kv_events = {{ {events} }}',
        policy="expected_latency",
    )
    text = text.replace("replicas = [", f'tokenizer = "tok"\nkv_block_tokens = {BLOCK}\nreplicas = [')

    async def run() -> None:
        config = decode(text, directory=tmp_path)
        async with publishing(tmp_path) as publisher:
            router = Router(config, Seat(1, Member(1, 1, 0), tmp_path, b"key"))
            overview = Peer(Member(1, 0, 0), [DatagramChannel(tmp_path, Member(1, 0, 0))])
            replica = router.fleet.replicas[0]
            await router.start()
            await overview.sharing.start()
            async with asyncio.timeout(10):
                while not router.kv_events.cached(replica):
                    publisher.send(stored(1))
                    await asyncio.sleep(0.01)
            publisher.send(stored(2), hidden=True)
            overview.sharing.publish(Forgotten("a", 0.0), "m", "v1")
            await until(lambda: len(router.kv_events.cached(replica)) == 2)
            await overview.sharing.close()
            await router.close()

    run_strictly(run())
