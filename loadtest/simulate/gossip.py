"""What the workers of one router tell each other, late and with losses.

As in the router itself, every worker names all its open requests several times a second, without their
prompts: a lost message costs accuracy for that long only.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from loadtest.simulate.timeline import Timeline
from loadtest.simulate.worker import Worker
from policies.routing.events import Dispatched, Done, Event

_NAMED_EVERY_S: Final = 0.2


class Gossip:
    """Messages come `delay_s` late, each is lost with probability `loss`; `delay_s` None: there are none."""

    def __init__(self, timeline: Timeline, delay_s: float | None, loss: float, random: Random) -> None:
        self.workers: list[Worker] = []
        self._timeline = timeline
        self._delay_s = delay_s
        self._loss = loss
        self._random = random
        self._open: dict[int, dict[int, Dispatched]] = {}
        if loss and delay_s is not None:
            timeline.every(_NAMED_EVERY_S, _NAMED_EVERY_S, self._name_open)

    def tell(self, sender: Worker, event: Event) -> None:
        """One message to every other worker."""
        if self._delay_s is None or len(self.workers) == 1:
            return
        if self._loss:
            self._keep(sender.number, event)
        self._timeline.after(self._delay_s, self._deliver, sender.number, event, self._hearers(sender))

    def _keep(self, sender: int, event: Event) -> None:
        opened = self._open.setdefault(sender, {})
        if isinstance(event, Dispatched):
            opened[event.ticket] = event._replace(prompt=None)
        elif isinstance(event, Done):
            opened.pop(event.ticket, None)

    def _hearers(self, sender: Worker) -> list[Worker]:
        others = [worker for worker in self.workers if worker is not sender]
        return [worker for worker in others if not self._loss or self._random.random() >= self._loss]

    def _name_open(self) -> None:
        """Nothing needs to be put right where nothing is lost, so that only runs with losses pay for this."""
        for worker in self.workers if len(self.workers) > 1 else ():
            if worker.up:
                opened = dict(self._open.get(worker.number, {}))
                self._timeline.after(
                    self._delay_s or 0.0, self._deliver_open, worker.number, opened, self._hearers(worker)
                )

    @staticmethod
    def _deliver(sender: int, event: Event, hearers: Sequence[Worker]) -> None:
        for worker in hearers:
            worker.hear(sender, event)

    @staticmethod
    def _deliver_open(sender: int, opened: Mapping[int, Dispatched], hearers: Sequence[Worker]) -> None:
        for worker in hearers:
            worker.hear_all_open(sender, opened)
