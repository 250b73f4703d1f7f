"""A router of several processes: its sockets, its folder, and the supervisor that runs the processes."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

import uvloop

from router.compose import Router
from router.config.history import History
from router.config.model import Config
from router.config.origin import Origin
from router.config.published import Published
from router.config.source import ConfigError
from router.control.membership import Seat, prefix_key
from router.control.messages import Member
from router.overview import Overview
from router.serving.children import Post
from router.serving.following import Follower
from router.serving.garbage import spare_what_is_loaded
from router.serving.listeners import exclusive, reserve, url_of
from router.serving.supervisor import OVERVIEW, Supervisor
from router.serving.worker import run_overview, run_worker

log = logging.getLogger("turnout.config")


def serve_workers(
    config: Config, origin: Origin, history: History, announce: Callable[[str, str], None]
) -> int:
    """Serve until a signal. Returns the exit code. `announce` gets the two base URLs when all are ready.

    Raises `OSError` if an address cannot be bound, or there is no place for the sockets of the processes.
    """
    public = reserve(config.server.host, config.server.port)
    admin = exclusive(config.admin.host, config.admin.port)
    key = prefix_key(config)
    router_id = SystemRandom().getrandbits(32)
    with tempfile.TemporaryDirectory(prefix="turnout-") as name:
        folder = Path(name)
        published = Published(folder)
        published.write(history)

        async def overview(post: Post, seat: Seat) -> int:
            in_force, _ = _in_force(published, origin, config)
            made = Overview(in_force, seat, origin=origin, published=published)
            spare_what_is_loaded()
            return await run_overview(made, post, admin)

        async def worker(post: Post, seat: Seat) -> int:
            in_force, generation = _in_force(published, origin, config)
            router = Router(in_force, seat)
            state = router.metrics.config
            state.generation = generation
            spare_what_is_loaded()
            follower = Follower(published, origin, router.apply, state)
            return await run_worker(router, seat, post, public, follower)

        def changed() -> bool:
            """The file says something else than what is in force, or cannot be read."""
            try:
                return origin.read() != published.read().in_force.text
            except ConfigError:
                return True

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
            run, config.server.workers, lambda: announce(url_of(public[0]), url_of(admin[0])), changed
        )
        return supervisor.run()


def _in_force(published: Published, origin: Origin, first: Config) -> tuple[Config, int]:
    """The configuration to be born with, and its number; the `first` if another cannot be used any more."""
    generation = published.read().in_force
    if generation.number == 1:
        return first, 1
    try:
        return origin.decode(generation.text), generation.number
    except ConfigError as error:
        log.error("configuration %d cannot be used, so the first one is: %s", generation.number, error)
        return first, 1
