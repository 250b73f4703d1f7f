"""A configuration with a canary that is quick to decide, and traffic that is quick to simulate."""

from random import Random

from loadtest.simulate.plan import Plan
from loadtest.simulate.workload import Call, Session, Workload, poisson
from policies.routing.events import Prompt

PLAN = Plan(
    profile="8b-a10g", host_tokens=0, replicas=None, slowdowns=(1.0,), workers=None, scrape_interval_s=1.0,
    gossip_s=0.005, gossip_loss=0.0, kv_events_s=None, faults=(), seed=0,
)  # fmt: skip


def _version(name: str, network: int) -> str:
    replicas = ", ".join(
        f'{{ url = "http://10.0.{network}.{host}:8000", engine = "vllm", id = "{name}-{host}" }}'
        for host in (1, 2)
    )
    return f'[models.m.versions.{name}]\nserved_name = "m"\nreplicas = [ {replicas} ]\n'


CONFIG = f"""
[models.m]
stable = "v1"
policy = "least_requests"
{_version("v1", 1)}
{_version("v2", 2)}
[models.m.canary]
steps = [20, 100]
min_requests = 100
max_step_s = 1000
margins = {{ error = 0.05, ttft_ratio = 1.2, inter_token_ratio = 1.2 }}
"""


def workload(sessions: int, calls: int = 1, named: bool = True) -> Workload:
    """Short prompts that share nothing, 20 sessions a second."""
    random = Random(5)
    starts = poisson(sessions, 20.0, random)
    return Workload(
        "short",
        [
            Session(at, [_call(random) for _ in range(calls)], f"s{number}" if named else None)
            for number, at in enumerate(starts)
        ],
        16,
    )


def _call(random: Random) -> Call:
    prompt = Prompt([random.getrandbits(62) for _ in range(4)], 64, 16)
    return Call(prompt, random.randint(6, 12), think_s=1.0)
