"""A router of several processes: its sockets, its folder, and the supervisor that runs the processes."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

import uvloop

from router.compose import Router
from router.config.model import Config
from router.control.membership import Seat, prefix_key
from router.control.messages import Member
from router.overview import Overview
from router.serving.children import Post
from router.serving.garbage import spare_what_is_loaded
from router.serving.listeners import exclusive, reserve, url_of
from router.serving.supervisor import OVERVIEW, Supervisor
from router.serving.worker import run_overview, run_worker


def serve_workers(config: Config, announce: Callable[[str, str], None]) -> int:
    """Serve until a signal. Returns the exit code. `announce` gets the two base URLs when all are ready.

    Raises `OSError` if an address cannot be bound, or there is no place for the sockets of the processes.
    """
    public = reserve(config.server.host, config.server.port)
    admin = exclusive(config.admin.host, config.admin.port)
    key = prefix_key(config)
    router_id = SystemRandom().getrandbits(32)
    with tempfile.TemporaryDirectory(prefix="turnout-") as name:
        folder = Path(name)

        async def overview(post: Post, seat: Seat) -> int:
            made = Overview(config, seat)
            spare_what_is_loaded()
            return await run_overview(made, post, admin)

        async def worker(post: Post, seat: Seat) -> int:
            router = Router(config, seat)
            spare_what_is_loaded()
            return await run_worker(router, seat, post, public)

        def run(post: Post) -> int:
            member = Member(router_id, (router_id + post.number) & 0xFFFF, post.epoch)
            seat = Seat(post.number, member, folder, key)
            try:
                return uvloop.run((overview if post.number == OVERVIEW else worker)(post, seat))
            except OSError as error:
                post.say(str(error))
                return 1

        spare_what_is_loaded()
        supervisor = Supervisor(
            run, config.server.workers, lambda: announce(url_of(public[0]), url_of(admin[0]))
        )
        return supervisor.run()
