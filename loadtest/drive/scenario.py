"""What of a scenario is the same under virtual time and over sockets."""

from dataclasses import replace

from loadtest.drive.prompts import Wording
from loadtest.simulate.setup import Setup
from loadtest.simulate.workload import Call, Workload
from router.fleet.prompts import PromptHasher


def check_drivable(setup: Setup) -> None:
    """Raises ValueError for what only virtual replicas can do."""
    wanted = {
        "faults": bool(setup.faults),
        "events of the caches": setup.kv_events_s is not None,
        "losses between workers": setup.gossip_loss > 0 or setup.gossip_s is None,
        "a fleet without metrics": setup.scrape_interval_s is None,
        "memory of the host": any(replica.hardware.host_tokens for replica in setup.replicas),
    }
    for what, is_wanted in wanted.items():
        if is_wanted:
            raise ValueError(f"{what}: can be simulated, not driven")


def drivable(workload: Workload, setup: Setup) -> Workload:
    """Without calls that no replica holds, and with prompts and answers as this router sees them.

    It hashes the text of prompts, and guesses their lengths from its bytes; what an answer adds to a cache it
    learns from the next turn. Raises ValueError.
    """
    check_drivable(setup)
    size = workload.block_tokens
    fitting = workload.fitting(min(one.hardware.kv_tokens // size * size for one in setup.replicas))
    if not len(fitting):
        raise ValueError("every request is longer than a replica's memory; see --profile")
    wording, hasher = Wording(size), PromptHasher(b"", fitting.name, "")
    sessions = [
        session._replace(calls=[_as_seen(call, wording, hasher) for call in session.calls])
        for session in fitting.sessions
    ]
    return replace(fitting, sessions=sessions)


def _as_seen(call: Call, wording: Wording, hasher: PromptHasher) -> Call:
    """As if its answer had taught the router its length before the next prompt came."""
    seen = hasher.hashed(wording.question(call).prompt)
    hasher.learn(seen, call.prompt.tokens)
    return call._replace(answer_seen=False, seen=seen)
