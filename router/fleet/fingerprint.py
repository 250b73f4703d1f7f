"""Verifies every replica before it serves: asks who it is, compares, and asks again when it may be another.

What is not verified gets no requests, however long it takes, and holds up nobody else. A process that may
have begun anew is `doubted`: it was the old one that was verified, so new connections wait for an answer.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from router.api.errors import UpstreamReset
from router.config.model import HealthConfig
from router.engines.fingerprint import Fingerprint, Question
from router.engines.fingerprints import QUESTIONS
from router.fleet.artefact import Artefacts, ArtefactUnreadable
from router.fleet.control_client import Answer, ControlClient, NoAnswer
from router.fleet.expectation import State, Verdict, mismatches, wanted_of
from router.fleet.replicas import Replica
from router.fleet.stations import Alarm, Rounds, Station, Watched
from router.fleet.tether import Tether

log = logging.getLogger("turnout.fleet.verifier")

AGAIN = 6.0
"""A verified replica is asked again after so many health intervals: another may answer at its address."""
JITTER = 0.1
WARMING_S = 0.4
"""The longest time between two questions to one that does not answer yet."""
START_S = 1.0
"""So long a start waits for replicas to say who they are; those that are slower join later."""
LOOK_S = 0.005
HASTE_S = 0.05
"""The shortest between two questions."""

_LOADING = frozenset({425, 429, 500, 502, 503, 504})
"""Statuses of a server that will know later."""

_UNJUDGED = Verdict()
_UNASKED = Verdict(state="warming", reason="it has not answered yet")

Answers = Mapping[str, Answer | NoAnswer]


class Verifier:
    """Verifies what it was told to `follow`, until `close`, and sets `Replica.verdict`.

    `changed` is called after the verdict on a replica has become another one.
    """

    def __init__(
        self,
        config: HealthConfig,
        *,
        changed: Callable[[Replica], None] | None = None,
        random: Random | None = None,
    ) -> None:
        self.config = config
        self.changed = changed
        self.random = random or Random()
        # A new connection per question: a kept one would lead to a process that is no more.
        self.client = ControlClient(keep_alive=False)
        self.artefacts = Artefacts()
        self._rounds = Rounds(lambda station, watched: VerifyPost(self, station, watched))
        self._posts: list[VerifyPost] = []

    def follow(self, watched: Iterable[Watched], config: HealthConfig | None = None) -> None:
        """Verify exactly these from now on; call it again when the fleet or its configuration has changed."""
        self.config = config or self.config
        watched = list(watched)
        self._rounds.follow(watched)
        posts = {post: None for each in watched if (post := self._rounds.of(each.replica)) is not None}
        self._posts = list(posts)

    async def first_round(self, timeout_s: float = START_S) -> None:
        """Wait until every process has been asked once, or has not answered for so long."""
        waiting = [asyncio.ensure_future(post.asked.wait()) for post in self._posts]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=timeout_s)
            for each in late:
                each.cancel()

    async def judged(self, replicas: Iterable[Replica], timeout_s: float) -> None:
        """Wait until each of these has been asked once, or has not answered for so long."""
        unasked = set(replicas)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # A verdict is a value, set by whichever post asks: there is nothing to wait on.
                while unasked := {each for each in unasked if each.verdict is _UNASKED}:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)

    def doubt(self, replica: Replica, *, gone: bool = False) -> None:
        """The process may have begun anew. `gone`: it is not there, and gets nothing until it is verified."""
        post = self._rounds.of(replica)
        if post is not None:
            post.doubt(gone=gone)

    def hasten(self, replica: Replica) -> None:
        """Ask now."""
        post = self._rounds.of(replica)
        if post is not None:
            post.hasten()

    async def settle(self, replica: Replica, timeout_s: float) -> None:
        """Wait until the replica is not doubted. Raises `UpstreamReset` if it is not verified then."""
        post = self._rounds.of(replica)
        try:
            async with asyncio.timeout(timeout_s):
                if post is not None:
                    await post.settled.wait()
        except TimeoutError:
            raise UpstreamReset("the replica began anew and does not say what it serves") from None
        if not replica.verdict.verified:
            raise UpstreamReset("the replica is not what its version says")

    async def close(self) -> None:
        await self._rounds.close()
        await self.client.close()


class VerifyPost:
    """The verification of one engine process, for every replica that it is."""

    def __init__(self, verifier: Verifier, station: Station, watched: Sequence[Watched]) -> None:
        self.station = station
        self.asked = asyncio.Event()
        """It was asked once, whatever came of it."""
        self.settled = asyncio.Event()
        """There is no doubt about who answers there."""
        self._verifier = verifier
        self._watched: Sequence[Watched] = ()
        self._doubts = 0
        self._patience_s = HASTE_S
        self._alarm = Alarm()
        self._tether = Tether(station.url, self.doubt, self._timeout_s)
        self.assign(watched)

    def assign(self, watched: Sequence[Watched]) -> None:
        known = {each.replica: (each.subject, each.expect) for each in self._watched}
        self._watched = watched
        for each in watched:
            # Another post may have judged it: a process is not another one because it is watched otherwise.
            new = each.replica not in known and each.replica.verdict == _UNJUDGED
            other = known.get(each.replica, (each.subject, each.expect)) != (each.subject, each.expect)
            if (new or other) and each.subject is not None:
                each.replica.judge_identity(_UNASKED)
        self.hasten()

    def hasten(self) -> None:
        self._alarm.ring()

    def doubt(self, *, gone: bool = False) -> None:
        self._doubts += 1
        self.settled.clear()
        for each in self._watched:
            each.replica.doubted = True
            if gone:
                self._judge(each.replica, self._unanswered(each.replica, "nobody listens there"))
        self._alarm.ring()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_asking())
            tasks.create_task(self._tether.run())

    def _timeout_s(self) -> float:
        return self._verifier.config.timeout_s

    async def _keep_asking(self) -> None:
        await self._tether.tried.wait()
        while True:
            doubts = self._doubts
            verdicts = await self._round()
            if doubts != self._doubts:
                continue
            if self._tether.would_tell or not any(verdict.verified for verdict in verdicts.values()):
                self._conclude(verdicts)
                await self._alarm.pause(self._pace_s(), HASTE_S)
            else:
                await self._alarm.pause(WARMING_S, HASTE_S)

    def _conclude(self, verdicts: Mapping[Replica, Verdict]) -> None:
        """What was found is of the process that is there now."""
        for replica, verdict in verdicts.items():
            replica.doubted = False
            self._judge(replica, verdict)
        self.settled.set()
        self.asked.set()

    def _pace_s(self) -> float:
        interval_s = self._verifier.config.interval_s
        states = {each.replica.verdict.state for each in self._watched}
        if states & {"warming", "gone"}:
            self._patience_s = min(2 * self._patience_s, WARMING_S, interval_s)
            return self._patience_s
        self._patience_s = HASTE_S
        again = 1.0 if "mismatch" in states else AGAIN
        return again * interval_s * (1 + JITTER * self._verifier.random.uniform(-1, 1))

    async def _round(self) -> dict[Replica, Verdict]:
        """Ask once, for all replicas that are this process."""
        watched = list(self._watched)
        asked = {each.replica: _questions(self.station.engine, each) for each in watched}
        paths = {question.path for questions in asked.values() for question in questions}
        answers = dict(zip(paths, await asyncio.gather(*map(self._ask, paths)), strict=True))
        return {each.replica: await self._verdict(each, asked[each.replica], answers) for each in watched}

    async def _ask(self, path: str) -> Answer | NoAnswer:
        url = self.station.url + path
        try:
            return await self._verifier.client.get(url, self.station.headers, self._timeout_s())
        except NoAnswer as error:
            return error

    async def _verdict(self, each: Watched, questions: Sequence[Question], answers: Answers) -> Verdict:
        replica, expect = each.replica, each.expect
        if each.subject is None:
            return Verdict()
        heard = read_answers(questions, answers)
        if heard.missing:
            # Verified before and not doubted since: slow, perhaps, and that is for the prober to judge.
            keeps = replica.verdict.verified and not replica.doubted and not heard.refused
            return replica.verdict if keeps else self._unanswered(replica, heard.missing)
        try:
            directory = None if expect is None else expect.artefact
            files = None if directory is None else await self._verifier.artefacts.of(directory)
        except ArtefactUnreadable as error:
            return self._unanswered(replica, f"the artefact cannot be read: {error}")
        found = mismatches(each.subject, expect, heard.said, files)
        said = heard.said if files is None else heard.said.filled(files)
        if found:
            return Verdict(state="mismatch", mismatches=found, said=said)
        return Verdict(said=said, reason="" if said.known() else "it cannot be asked")

    def _unanswered(self, replica: Replica, reason: str) -> Verdict:
        before = replica.verdict
        state: State = "gone" if before.verified or before.state == "gone" else "warming"
        return Verdict(state=state, reason=reason, said=before.said)

    def _judge(self, replica: Replica, verdict: Verdict) -> None:
        before = replica.verdict
        replica.judge_identity(verdict)
        if (before.state, before.complaints) == (verdict.state, verdict.complaints):
            return
        self._tell(replica, verdict)
        if self._verifier.changed is not None:
            self._verifier.changed(replica)

    def _tell(self, replica: Replica, verdict: Verdict) -> None:
        identity = replica.identity
        place = f"replica {replica.id} ({replica.engine.kind}, {identity.model} {identity.version})"
        if verdict.verified:
            log.info("%s is verified%s", place, f": {verdict.reason}" if verdict.reason else "")
        for complaint in verdict.complaints:
            log.log(logging.WARNING if verdict.mismatches else logging.INFO, "%s %s", place, complaint)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the answers say; `missing`: what was not answered, so that it is too early to judge.

    `refused`: because nobody listens there.
    """

    said: Fingerprint
    missing: str = ""
    refused: bool = False


def _questions(engine: str, watched: Watched) -> tuple[Question, ...]:
    """Only what somebody wants to know."""
    if watched.subject is None:
        return ()
    wanted = wanted_of(watched.expect)
    return tuple(each for each in QUESTIONS[engine](watched.subject) if each.tells & wanted)


def read_answers(questions: Sequence[Question], answers: Answers) -> Heard:
    """What an engine refuses to say, or says in words that are not its own, it does not say."""
    said = Fingerprint()
    for question in questions:
        answer = answers[question.path]
        if isinstance(answer, NoAnswer):
            return Heard(said, str(answer), answer.refused)
        if answer.status in _LOADING:
            return Heard(said, f"it is loading: {question.path} answered {answer.status}")
        try:
            said = said.filled(_read(question, answer))
        except ValueError:
            continue
    return Heard(said)


def _read(question: Question, answer: Answer) -> Fingerprint:
    """Raises `ValueError` for what says nothing."""
    if answer.status == 200:
        return question.read(answer.content)
    if question.refused is None:
        raise ValueError(f"answered {answer.status}")
    return question.refused(answer.status, answer.content)
