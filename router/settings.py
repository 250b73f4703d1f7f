"""Parts that are made of nothing but the configuration."""

from dataclasses import replace

from policies.limits.fair_queue import QueueBounds
from router.config.model import Config, ShadowConfig
from router.fleet.hot_prompts import HotPrompts
from router.flow.call import Limits
from router.flow.queue import QueueLimits, Queues
from router.flow.shadow import ShadowPlan
from router.flow.upstream import Keeping
from router.observe.access_log import AccessLog, open_target
from router.serving.head import Budget

_LOAD_FRESH_S = 5.0


def keeping_of(config: Config) -> Keeping:
    return Keeping(
        idle_s=config.upstream.idle_s,
        connect_s=config.timeouts.connect_s,
        max_head_bytes=config.upstream.max_response_head_bytes,
        max_connections=config.upstream.max_connections_per_replica,
    )


def load_fresh_s_of(config: Config) -> float:
    """How old a scrape may be to be believed."""
    return max(_LOAD_FRESH_S, 3 * config.scrape.interval_s)


def warm_prompts_of(config: Config) -> dict[tuple[str, str], HotPrompts]:
    """By model and version, of those whose new replicas are to be warmed."""
    return {
        (name, number): HotPrompts(version.warm_join_prompts, version.warm_join_tokens)
        for name, model in config.models.items()
        for number, version in model.versions.items()
        if version.warm_join_prompts
    }


def queues_of(config: Config, queues: Queues | None = None) -> Queues | None:
    """Those that are there already, bounded anew; None where nobody is to wait."""
    queue = config.queue
    if not queue.max_requests:
        return None
    # Without keys all are one tenant: nobody is there to be kept from the rest.
    share = queue.tenant_share if config.keys else 1.0
    limits = QueueLimits(QueueBounds(queue.max_requests, queue.max_bytes, share), queue.max_wait_s)
    if queues is None:
        return Queues(limits)
    queues.bound(limits)
    return queues


def access_log_of(config: Config) -> AccessLog | None:
    target = open_target(config.server.access_log)
    return None if target is None else AccessLog(target, log_prefixes=config.server.log_prefixes)


def limits_of(config: Config) -> Limits:
    timeouts = config.timeouts
    return Limits(
        connect_s=timeouts.connect_s,
        first_token_s=timeouts.first_token_s,
        between_tokens_s=timeouts.between_tokens_s,
        total_s=timeouts.total_s,
        max_attempts=config.retries.max_attempts,
        max_answer_bytes=config.upstream.max_answer_bytes,
    )


def shadow_plans_of(config: Config) -> dict[str, ShadowPlan]:
    """By model, where copies are to be sent at all."""
    return {
        name: ShadowPlan(
            version=shadow.version,
            fraction=shadow.fraction,
            max_open=shadow.max_open,
            max_bytes=shadow.max_bytes,
            timeout_s=shadow.timeout_s,
            limits=_limits_of_copies(limits_of(config), shadow),
        )
        for name, model in config.models.items()
        if (shadow := model.shadow) is not None and shadow.fraction
    }


def _limits_of_copies(limits: Limits, shadow: ShadowConfig) -> Limits:
    """Nothing is tried twice; all whole answers that may be under way at once fit into half of the memory."""
    answer_bytes = shadow.max_bytes // (2 * shadow.max_open)
    return replace(limits, max_attempts=1, max_answer_bytes=min(limits.max_answer_bytes, answer_bytes))


def budget_of(config: Config) -> Budget:
    server = config.server
    return Budget(
        max_head_bytes=server.max_header_bytes,
        max_headers=server.max_headers,
        max_body_bytes=server.max_body_bytes,
        head_timeout_s=server.head_timeout_s,
        body_timeout_s=server.body_timeout_s,
        keep_alive_s=server.keep_alive_s,
        write_stall_s=server.write_stall_s,
    )
