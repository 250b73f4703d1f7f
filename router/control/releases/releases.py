"""What one process has to do with releases: every one follows them and tells what it sees, one moves them."""

from collections.abc import Callable, Mapping

from policies.release.lifecycle import Release
from router.config.model import Config
from router.control.membership import Seat
from router.control.releases.evidence_line import EvidenceBox, EvidencePost
from router.control.releases.follower import Follower
from router.control.releases.office import Office
from router.control.releases.places import release_file
from router.fleet.routes import Fleet
from router.observe.events import Finished
from router.observe.evidence import observation_of

Changed = Callable[[Mapping[str, Release]], None]


class Releases:
    """`changed` gets the releases in force, at the start and whenever they change.

    Where the admin listener is, there is an `office`. Workers, which have a seat and no office, send what
    they see to the overview's.
    """

    def __init__(
        self,
        config: Config,
        seat: Seat | None,
        fleet: Callable[[], Fleet],
        changed: Changed,
        *,
        has_office: bool,
    ) -> None:
        file = release_file(config, seat)
        self._follower = Follower(file, changed)
        self.office = Office(config, file, fleet, self._follower.look) if has_office else None
        self._post = EvidencePost(seat.folder) if seat is not None and not has_office else None
        self._box = (
            EvidenceBox(seat.folder, self.office.observe)
            if seat is not None and self.office is not None
            else None
        )

    @property
    def in_force(self) -> Mapping[str, Release]:
        """By model, of those that ever had one."""
        return self._follower.known

    def reconfigure(self, config: Config) -> None:
        """Another configuration is in force, under the same releases."""
        if self.office is not None:
            self.office.reconfigure(config)

    def start(self) -> None:
        """Raises `OSError` if the folder of a seat cannot be used."""
        self._follower.start()
        if self._box is not None:
            self._box.start()
        if self.office is not None:
            self.office.start()

    async def close(self) -> None:
        await self._follower.close()
        if self._post is not None:
            self._post.close()
        if self._box is not None:
            self._box.close()
        if self.office is not None:
            await self.office.close()

    def observe(self, event: Finished) -> None:
        """A request is over; most say nothing of a release."""
        if event.arm is None:
            return
        seen = observation_of(event)
        if seen is None:
            return
        if self._post is not None:
            self._post.observe(event.arm.salt, seen)
        elif self.office is not None:
            self.office.observe(event.arm.salt, seen)
