"""The options of the router process itself: its two listeners, its clocks and its care for the replicas."""

from typing import Literal

from router.config import checks
from router.config.option import option, section
from router.config.places import log_target
from router.config.secret import Secret, SecretUrl

LogLevel = Literal["debug", "info", "warning", "error"]
OnRedisFailure = Literal["local_share", "deny", "allow"]


@section
class ServerConfig:
    """`[server]`: where clients connect, and what one request may cost before it is understood."""

    host: str = option(
        "Address to listen on; '0.0.0.0' or '::' serves other machines.",
        checks.not_empty,
        default="127.0.0.1",
    )
    port: int = option(
        "Port for clients; 0 takes a free one and logs it.", checks.between(0, 65535), default=8080
    )
    workers: int = option(
        "Processes that share the port; raise it when one core is busy all the time.",
        checks.between(1, 256),
        default=1,
    )
    max_body_bytes: int = option(
        "Largest request body; raise it for images in prompts.", checks.at_least(1024), default=8_388_608
    )
    max_header_bytes: int = option(
        "Largest request head, all headers together; lower it if your clients send small ones.",
        checks.at_least(1024),
        default=65_536,
    )
    max_headers: int = option("Most header fields in one request.", checks.at_least(8), default=100)
    max_json_depth: int = option(
        "Deepest nesting in a request body; raise it only for deeply nested tool schemas.",
        checks.between(4, 512),
        default=64,
    )
    head_timeout_s: float = option(
        "Time for a request head to arrive, however slowly its bytes come.", checks.above(0), default=10.0
    )
    body_timeout_s: float = option(
        "Time for a request body to arrive; raise it for big bodies over slow links.",
        checks.above(0),
        default=30.0,
    )
    keep_alive_s: float = option(
        "How long an idle client connection stays open; keep it above your load balancer's idle timeout.",
        checks.above(0),
        default=75.0,
    )
    write_stall_s: float = option(
        "How long a client may read nothing of its answer before it is cut off.",
        checks.above(0),
        default=60.0,
    )
    settle_s: float = option(
        "After SIGTERM: not ready, still serving; keep it above your load balancer's readiness interval.",
        checks.at_least(0),
        default=5.0,
    )
    drain_timeout_s: float = option(
        "After settling: how long open streams may take to finish; keep it above your longest answer.",
        checks.at_least(0),
        default=600.0,
    )
    access_log: str = option(
        "One line of JSON per request to 'stdout', 'stderr' or a file; 'off' for none.",
        checks.not_empty,
        default="stdout",
        convert=log_target,
    )
    log_prefixes: bool = option(
        "Also log each prompt's hashed blocks, no text: `turnout simulate` can then replay the day.",
        default=False,
    )
    log_level: LogLevel = option(
        "How much the router says on standard error: 'debug', 'info', 'warning' or 'error'.", default="info"
    )


@section
class AdminConfig:
    """`[admin]`: a listener of its own for metrics, the dashboard and releases."""

    host: str = option(
        "Address of the admin listener; anything but loopback needs a token.",
        checks.not_empty,
        default="127.0.0.1",
    )
    port: int = option("Port for metrics, dashboard and releases.", checks.between(0, 65535), default=8081)
    token: Secret | None = option(
        "Asked of every admin request as a bearer token; absent: loopback only, reads and writes allowed.",
        default=None,
        example="env:TURNOUT_ADMIN_TOKEN",
    )


@section
class RedisConfig:
    """`[redis]`: what several routers share. Absent: limits, releases and sharing live in this process."""

    url: SecretUrl = option(
        "The Redis-compatible server that all routers of this fleet share.",
        checks.redis_url,
        example="redis://127.0.0.1:6379/0",
    )
    on_failure: OnRedisFailure = option(
        "While it is away: 'local_share' gives this router its part of a limit; 'deny' or 'allow' all.",
        default="local_share",
    )
    timeout_ms: float = option(
        "Longest wait for one answer; a request never waits longer than this for its limits.",
        checks.above(0),
        default=25.0,
    )


@section
class ReleasesConfig:
    """`[releases]`: where the state of releases is kept, and who is told of it."""

    file: str | None = option(
        "Where it is kept without [redis]; absent: beside the configuration, as NAME.releases.json.",
        checks.not_empty,
        default=None,
        example="/var/lib/turnout/releases.json",
    )
    webhook: SecretUrl | None = option(
        "Gets a POST with the move and its evidence for every move of a release.",
        checks.http_url,
        default=None,
        example="http://127.0.0.1:9000/releases",
    )


@section
class TimeoutsConfig:
    """`[timeouts]`: what one request may wait for at a replica."""

    connect_s: float = option("To open a connection to a replica.", checks.above(0), default=1.0)
    first_token_s: float = option(
        "From sending the request to its first token; raise it for very long prompts.",
        checks.above(0),
        default=60.0,
    )
    between_tokens_s: float = option(
        "Between two tokens of a stream; keep it above the longest pause of a busy engine.",
        checks.above(0),
        default=30.0,
    )
    total_s: float = option(
        "For the whole request, all its attempts together; clients may ask for less.",
        checks.above(0),
        default=900.0,
    )


@section
class RetriesConfig:
    """`[retries]`: what happens when a replica fails a request."""

    max_attempts: int = option(
        "Replicas tried for one request, the first included; 1 turns retries off.",
        checks.between(1, 10),
        default=3,
    )
    budget_ratio: float = option(
        "Retries allowed per request served: keeps an outage from multiplying its own load.",
        checks.between(0, 1),
        default=0.1,
    )
    budget_floor_per_s: float = option(
        "Retries always allowed, so that a quiet service can retry too.", checks.at_least(0), default=3.0
    )
    continue_streams: bool = option(
        "When a replica dies in mid-stream, another one goes on from the last token.", default=True
    )


@section
class QueueConfig:
    """`[queue]`: who waits, and how long, while all replicas of a version are saturated; else nobody does."""

    max_requests: int = option(
        "Most requests that wait for one version; 0 turns the queue off, and engines get all there is.",
        checks.at_least(0),
        default=1000,
    )
    max_bytes: int = option(
        "Most bytes of requests that wait for one version; lower it where memory is short.",
        checks.at_least(1024),
        default=268_435_456,
    )
    max_wait_s: float = option(
        "Longest wait; who cannot be served within it is refused at once. Keep it below clients' patience.",
        checks.above(0),
        default=60.0,
    )
    tenant_share: float = option(
        "Most of the queue that one tenant may fill, 0 to 1, but at least 10 requests; with [[keys]] only.",
        checks.between(0, 1),
        default=0.2,
    )
    engine_share: float = option(
        "Requests that may wait in an engine per running one, 2 at least; more only if its batch shrinks.",
        checks.between(0, 1),
        default=0.1,
    )


@section
class UpstreamConfig:
    """`[upstream]`: the connections to the replicas."""

    idle_s: float = option(
        "How long an unused connection is kept; stay below the engine's own limit (vLLM closes after 5 s).",
        checks.above(0),
        default=4.0,
    )
    max_connections_per_replica: int = option(
        "Most connections to one replica; keep it above the most requests it can run and queue.",
        checks.at_least(1),
        default=1024,
    )
    max_response_head_bytes: int = option(
        "Largest head of an answer; a larger one counts as a broken replica.",
        checks.at_least(1024),
        default=65_536,
    )
    max_answer_bytes: int = option(
        "Largest answer that is not a stream; it is held whole so that a failure can still be retried.",
        checks.at_least(1024),
        default=33_554_432,
    )


@section
class HealthConfig:
    """`[health]`: the probes that take a replica out and bring it back."""

    interval_s: float = option("Time between two probes of a replica.", checks.above(0), default=5.0)
    timeout_s: float = option(
        "Longest wait for a probe's answer; busy engines answer late, so keep it generous.",
        checks.above(0),
        default=10.0,
    )
    up_after: int = option(
        "Good probes in a row before a replica gets traffic.", checks.at_least(1), default=2
    )
    down_after: int = option("Bad probes in a row before a replica gets none.", checks.at_least(1), default=3)


@section
class ScrapeConfig:
    """`[scrape]`: reading the replicas' own metrics, off the path of requests."""

    interval_s: float = option(
        "Time between two readings of a replica's metrics; raise it for fleets of hundreds.",
        checks.above(0),
        default=1.0,
    )
    timeout_s: float = option(
        "Longest wait for a replica's metrics; a late reading counts as none.", checks.above(0), default=2.0
    )
