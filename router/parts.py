"""The parts of a router that are made anew when its configuration changes, out of those that stay."""

from random import Random
from typing import TYPE_CHECKING

from router.flow.dispatch import Dispatcher, Hooks
from router.flow.inference import Access, Inference
from router.flow.one_token import OneTokenAsker
from router.flow.shadow import Lane, Shadowed, Shadows
from router.flow.warm_join import WarmJoins
from router.settings import limits_of, queues_of, shadow_plans_of, warm_prompts_of

if TYPE_CHECKING:
    from router.compose import Router


def inference_of(router: "Router") -> Inference:
    """A request is served to its end by the one that took it in."""
    config, shadows, warm_joins = router.config, router.shadows, router.warm_joins
    limits = limits_of(config)
    hooks = Hooks(
        failed=router.tidings.look_again,
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
    asker = OneTokenAsker(router.upstreams, router.config.timeouts.first_token_s, router.tidings.look_again)
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
    lanes = {
        model: Lane(
            plan,
            Dispatcher(plan.limits, router.watch, router.upstreams, Hooks(failed=router.tidings.look_again)),
        )
        for model, plan in plans.items()
    }
    return Shadows(
        lanes,
        router.current_fleet,
        router.shadow_counts,
        Random(),
        draining=lambda: router.front_end.draining,
    )
