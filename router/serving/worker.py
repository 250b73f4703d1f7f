"""The processes of a router of several: what a worker runs, and what the overview runs."""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from router.compose import Router
from router.control.hearing import place_of
from router.control.line import Line
from router.control.membership import Seat
from router.control.messages import Place
from router.control.reports import Draining, Loads, LookAgain, ReplicaReport, Wish, WorkerReport
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.overview import Overview
from router.serving.children import STOP, Post
from router.serving.following import Follower
from router.serving.listeners import beside
from router.serving.server import Process, admin_server, until_started


class Deputy:
    """Speaks for one worker's router to the overview, and does there what the overview wishes."""

    def __init__(self, router: Router, seat: Seat) -> None:
        self._router = router
        self._seat = seat
        self._known: Fleet | None = None
        self._by_place: dict[Place, Replica] = {}

    @property
    def _replicas(self) -> Mapping[Place, Replica]:
        """Of the fleet in force."""
        fleet = self._router.fleet
        if fleet is not self._known:
            self._known, self._by_place = fleet, {place_of(each): each for each in fleet.replicas}
        return self._by_place

    def report(self, asked: int) -> WorkerReport:
        router, sharing = self._router, self._router.sharing
        return WorkerReport(
            asked=asked,
            number=self._seat.number,
            member=self._seat.member,
            pid=os.getpid(),
            series=list(router.metrics.series.items()),
            replicas=[self._replica(place, each) for place, each in self._replicas.items()],
            dropped_log_lines=0 if router.access_log is None else router.access_log.dropped_lines,
            dropped_messages=0 if sharing is None else sharing.dropped,
            queued=[
                (model, version, pool.queued)
                for (model, version), pool in router.fleet.pools.items()
                if pool.queued
            ],
            peers=0 if sharing is None else sharing.peers,
            cpu_s=sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
            resident_bytes=_resident_bytes(),
            limits=None if router.limits is None else router.limits.report(),
            generation=router.metrics.config.generation,
            shadows=list(router.shadow_counts.tallies.items()),
        )

    def _replica(self, place: Place, replica: Replica) -> ReplicaReport:
        events = self._router.kv_events
        return ReplicaReport(
            place=place,
            up=replica.up,
            draining=replica.draining,
            in_flight=replica.own_in_flight,
            waiting=replica.waiting,
            measured=replica.meter.read(0, 0),
            tokens=replica.own_tokens,
            kv=events.figures(replica),
            kv_warnings=events.warnings(replica),
            warm_joins=dict(replica.warm_joins),
        )

    def obey(self, wish: Wish) -> None:
        match wish:
            case Loads(loads):
                for place, at, load in loads:
                    if place in self._replicas:
                        self._replicas[place].read(load, at)
            case Draining(places):
                for place, replica in self._replicas.items():
                    replica.draining = place in places
            case LookAgain(place) if place in self._replicas:
                self._router.prober.hasten(self._replicas[place])


async def run_worker(
    router: Router, seat: Seat, post: Post, reserved: Sequence[socket.socket], follower: Follower
) -> int:
    """Serve until told to stop, or until the supervisor is gone. Returns the exit code."""
    process = Process(router, router.config, beside(reserved), signals=(STOP,))
    deputy = Deputy(router, seat)
    line = Line(seat.folder, deputy.report, deputy.obey)
    _on_orphaned(post, process.stop)
    line.start()
    following = asyncio.create_task(follower.run())
    try:
        return await process.run(lambda _public, _admin: post.say_ready())
    finally:
        following.cancel()
        await line.close()


async def run_overview(overview: Overview, post: Post, sockets: Sequence[socket.socket]) -> int:
    """Serve the admin listener until told to stop. Returns the exit code."""
    server = admin_server(overview.admin_app, overview.config.admin)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    loop.add_signal_handler(STOP, stop)
    loop.add_signal_handler(signal.SIGHUP, overview.reloader.hasten)
    _on_orphaned(post, stop)
    await overview.start()
    serving = asyncio.create_task(server.serve(list(sockets)))
    await until_started([server], [serving])
    post.say_ready()
    await serving
    await overview.close()
    return 0


def _on_orphaned(post: Post, stop: Callable[[], None]) -> None:
    """Drain when the supervisor is no more: nobody would replace this worker, or end it."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(post.lifeline)
        stop()

    loop.add_reader(post.lifeline, gone)


def _resident_bytes() -> int:
    """0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
