"""The options of KV events, and what must hold between them and those of the replica that they are of."""

from collections.abc import Iterator

from router.config import checks
from router.config.option import option, section

_ENGINES = ("vllm", "trtllm")


@section
class KvEventsConfig:
    """`kv_events`: how the engine tells what its prefix cache holds. Absent: the router guesses it."""

    endpoint: str | None = option(
        "Where it publishes over ZMQ; '*' listens there instead. Absent, for trtllm: asked for over HTTP.",
        checks.zmq_endpoint,
        default=None,
        example="tcp://10.0.0.8:5557",
    )
    replay_endpoint: str | None = option(
        "Where it publishes again what was missed; without it a gap means to begin with nothing.",
        checks.zmq_peer,
        default=None,
        example="tcp://10.0.0.8:5558",
    )
    topic: str = option("Events of other topics are not heard; empty: all are.", default="")
    ranks: int = option(
        "Data-parallel ranks behind the replica, each with the next port.", checks.between(1, 1024), default=1
    )
    interval_s: float = option("trtllm: time between two questions over HTTP.", checks.above(0), default=0.5)


def kv_events_mistakes(
    events: KvEventsConfig, engine: str, tokenizer: str | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The option where each mistake is, () for all of them, and what would be right."""
    if engine not in _ENGINES:
        yield (), f"is for engine = 'vllm' and 'trtllm', this replica is {engine!r}; remove it"
        return
    if tokenizer is None:
        yield (), "tells token ids, and prompts are texts; write the version's tokenizer, or remove this"
    if engine == "vllm" and events.endpoint is None:
        yield ("endpoint",), 'is missing; write endpoint = "tcp://10.0.0.1:5557"'
    elif events.endpoint is None and events.replay_endpoint is not None:
        yield ("replay_endpoint",), "sends again what an endpoint published; write endpoint, too"
    if events.ranks > 1 and not _have_ports(events):
        yield ("ranks",), "count on from a port; write endpoints that begin with 'tcp://', or 1"


def _have_ports(events: KvEventsConfig) -> bool:
    places = (events.endpoint, events.replay_endpoint)
    return all(place is None or place.startswith("tcp://") for place in places)
