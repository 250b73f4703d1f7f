"""The parts of a router that are made of others; most of them anew when its configuration changes."""

from random import Random
from time import monotonic
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from router.admin.app import Sources, create_admin_app
from router.flow.dispatch import Dispatcher, Hooks
from router.flow.inference import Access, Inference
from router.flow.one_token import OneTokenAsker
from router.flow.shadow import Lane, Shadowed, Shadows
from router.flow.warm_join import WarmJoins
from router.observe.gauges import ReplicaGauges
from router.observe.kv_events import KvEventMetrics
from router.observe.limits import LimitStoreMetrics
from router.observe.metrics import RouterMetrics
from router.observe.queues import QueueGauge
from router.observe.releases import ReleaseMetrics
from router.observe.shadow import ShadowMetrics
from router.observe.warm_joins import WarmJoinCounts
from router.settings import limits_of, queues_of, shadow_plans_of, warm_prompts_of

if TYPE_CHECKING:
    from router.compose import Router


def inference_of(router: "Router") -> Inference:
    """A request is served to its end by the one that took it in."""
    config, shadows, warm_joins = router.config, router.shadows, router.warm_joins
    limits = limits_of(config)
    hooks = Hooks(
        failed=router.look_again,
        answered=None if warm_joins is None else warm_joins.answered,
        make_room=None if shadows is None else shadows.make_room,
        settle=router.verifier.settle,
    )
    queues = queues_of(config, router.queues)
    dispatcher = Dispatcher(limits, router.watch, router.upstreams, hooks, queues)
    gate = router.limits.gate if config.limits and router.limits is not None else None
    return Inference(
        router.current_fleet,
        dispatcher if shadows is None else Shadowed(dispatcher, shadows),
        limits,
        router.rules,
        router.observe,
        hashes_all=config.server.log_prefixes,
        access=Access(router.keys, gate),
    )


def warm_joins_of(router: "Router") -> WarmJoins | None:
    """None where nobody asks for it; of several workers the first does it for all."""
    prompts = warm_prompts_of(router.config)
    if not prompts or (router.seat is not None and router.seat.number != 1):
        return None
    asker = OneTokenAsker(router.upstreams, router.config.timeouts.first_token_s, router.look_again)
    return WarmJoins(router.fleet, prompts, asker.ask, draining=lambda: router.front_end.draining)


def shadows_of(router: "Router", before: Shadows | None = None) -> Shadows | None:
    """None where no version gets copies. Those of `before` that plan the same go on; others end."""
    plans = shadow_plans_of(router.config)
    if before is not None:
        if {model: lane.plan for model, lane in before.lanes.items()} == plans:
            return before
        before.retire()
    if not plans:
        return None
    hooks = Hooks(failed=router.look_again, settle=router.verifier.settle)
    lanes = {
        model: Lane(plan, Dispatcher(plan.limits, router.watch, router.upstreams, hooks))
        for model, plan in plans.items()
    }
    return Shadows(
        lanes,
        router.current_fleet,
        router.shadow_counts,
        Random(),
        draining=lambda: router.front_end.draining,
    )


def metrics_of(router: "Router") -> RouterMetrics:
    """All that is counted, by whoever counts it when this is asked."""
    more = [
        ReplicaGauges(router.current_fleet, router.scraper.figures, monotonic),
        KvEventMetrics(router.current_fleet, router.kv_events.figures),
        WarmJoinCounts(router.current_fleet),
        LimitStoreMetrics(lambda: None if router.limits is None else router.limits.state),
        QueueGauge(router.current_fleet),
        ShadowMetrics(lambda: router.shadow_counts.tallies),
    ]
    if router.releases.office is not None:
        more.append(ReleaseMetrics(router.current_fleet, router.releases.office))
    return RouterMetrics(router.current_fleet, more=more, dropped_log_lines=lambda: router.dropped_log_lines)


def admin_app_of(router: "Router") -> Starlette:
    """The admin listener's."""
    sources = Sources(
        fleet=router.current_fleet,
        metrics=router.metrics,
        reports=router.scraper,
        rules=router.rules,
        kv_events=router.kv_events,
        limits=lambda: router.limits,
        keys=router.keys,
        reloader=router.reloader,
        shadows=lambda: router.shadow_counts.tallies,
        releases=router.releases.office,
    )
    return create_admin_app(sources, router.config.admin)
