"""What a connection tells that nothing is sent on."""

import asyncio
from collections.abc import Awaitable, Callable

from router.fleet.tether import MOST_IN_VAIN, Tether
from tests.support.loops import run_strictly
from tests.support.scripted_server import ScriptedServer, until


def play(act: Callable[[Tether, ScriptedServer, list[None]], Awaitable[None]]) -> None:
    """Run `act` with a tether to a server that listens not yet, and the changes that it told of."""

    async def run() -> None:
        server = ScriptedServer()
        await server.start()
        await server.stop()
        changes: list[None] = []
        tether = Tether(server.url, lambda: changes.append(None), lambda: 5.0)
        task = asyncio.create_task(tether.run())
        try:
            await act(tether, server, changes)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await server.stop()

    run_strictly(run())


def test_a_process_that_ends_is_noticed_though_nobody_asks_it() -> None:
    """And so is the one after it."""

    async def act(tether: Tether, server: ScriptedServer, changes: list[None]) -> None:
        await tether.tried.wait()
        assert not tether.would_tell
        assert not changes
        for life in (1, 3):
            await server.start()
            await until(lambda: tether.would_tell)
            assert len(changes) == life
            # Held on to for longer than one that always lets go.
            await asyncio.sleep(0.1)
            await server.stop()
            await until(lambda life=life: len(changes) == life + 1)
            assert not tether.would_tell
        assert not server.seen

    play(act)


def test_one_that_always_lets_go_is_not_counted_on() -> None:
    """Nor connected to without end."""

    async def act(tether: Tether, server: ScriptedServer, _: list[None]) -> None:
        await server.start()
        serve = server._serve

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()
            await serve(reader, writer)

        await server.stop()
        listener = await asyncio.start_server(refuse, "127.0.0.1", server.port)
        try:
            await until(lambda: tether.would_tell and server.connections >= MOST_IN_VAIN)
            before = server.connections
            await asyncio.sleep(0.3)
            assert server.connections <= before + 6
        finally:
            listener.close()
            await listener.wait_closed()

    play(act)
