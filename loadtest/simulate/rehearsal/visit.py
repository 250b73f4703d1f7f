"""One request of a rehearsal, and what the router would tell its observers of it."""

from dataclasses import dataclass

from loadtest.simulate.rehearsal.defects import Struck
from loadtest.simulate.results import Served
from loadtest.simulate.workload import Session
from policies.outcome import Ending
from router.api.request import Usage
from router.fleet.routes import Arm
from router.observe.events import Attempt, Finished


@dataclass(frozen=True, slots=True)
class Visit:
    """`assigned`: the version that it was drawn for; `arm`: what the release compares, if it does."""

    session: Session
    index: int
    name: str
    """Of the session, or the number of one that has none."""
    unit: str
    assigned: str
    arm: Arm | None
    struck: Struck
    fallback: str
    """Who answers if the assigned version fails before its first token."""

    @property
    def version(self) -> str:
        """Who answers."""
        return self.fallback if self.struck.errors else self.assigned

    def finished(self, model: str, served: Served, ordinal: int) -> Finished:
        """Of an answer that came whole, or broke off; `ordinal` counts what its replica had served before."""
        return Finished(
            at=served.at,
            request_id=f"{self.name}/{self.index}",
            path="/v1/chat/completions",
            model=model,
            version=self.version,
            replica=served.replica,
            stream=True,
            status=200,
            outcome="upstream_reset" if self.struck.broken else "ok",
            attempts=self._attempts(served),
            duration_s=served.ended_at - served.at,
            overhead_s=0.0,
            time_to_first_token_s=served.ttft_s,
            gaps=[max(0, served.completion_tokens - 1)],
            gap_sum_s=served.ended_at - (served.first_token_at or served.ended_at),
            usage=Usage(served.prompt_tokens, served.completion_tokens, served.cached_tokens),
            finish_reason="length" if self.struck.truncated else "stop",
            # No trace says whose a session is: where a tenant is one witness, a session stands for it.
            tenant=self.unit,
            arm=self.arm,
            unit=self.unit,
            ordinal=ordinal,
        )

    def _attempts(self, served: Served) -> tuple[Attempt, ...]:
        """Failures of the canary, those on replicas that died, and the last one."""
        failed = served.attempts - 1 + self.struck.errors
        broken = self.struck.broken and not self.struck.errors
        ending = Ending.FAILED if broken else Ending.COMPLETED
        last = Attempt(served.replica, "first", ending.word, served.ttft_s or 0.0)
        return (*(Attempt("", "first", Ending.FAILED.word, 0.0) for _ in range(failed)), last)
