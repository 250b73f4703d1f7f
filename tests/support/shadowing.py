"""A model whose second version gets copies: replicas of both, and what came of the copies."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from router.compose import Router
from router.config.decode import decode
from router.flow.shadow import Lane, Shadows
from router.observe.events import Copied
from tests.support.flow import Flow
from tests.support.loops import StrictLoop
from tests.support.peers import Script, scripted_peer
from tests.support.routers import config_text
from tests.support.scripted_server import until

ALL = "fraction = 1.0"


def shadow_text(served: str, copied: str, shadow: str = ALL, more: str = "") -> str:
    """A configuration of `m` with one replica in v1, which is stable, and one in v2, which gets copies."""
    return (
        config_text(served, policy="least_requests", more=more)
        + f"""
[models.m.versions.v2]
served_name = "served"
replicas = [ {{ {copied} }} ]
[models.m.shadow]
version = "v2"
{shadow}
"""
    )


@dataclass(slots=True)
class ShadowFlow(Flow):
    """`peers` are v1's replica and v2's; `copied` is what was told of copies, in order."""

    copied: list[Copied] = field(default_factory=list)

    @property
    def shadows(self) -> Shadows:
        assert self.router.shadows is not None
        return self.router.shadows

    @property
    def lane(self) -> Lane:
        return self.shadows.lanes["m"]

    @property
    def results(self) -> list[str]:
        return [event.result for event in self.copied]

    async def copies_over(self) -> None:
        """No copy is under way, and nothing is held for one."""
        await until(lambda: not self.shadows.open)
        assert (self.lane.open, self.lane.held_bytes) == (0, 0)


@contextlib.asynccontextmanager
async def shadow_flow(
    served: Script, copied: Script, *, shadow: str = ALL, more: str = "", entries: tuple[str, str] = ("", "")
) -> AsyncIterator[ShadowFlow]:
    """A flow over scripted replicas; `entries` are added to theirs."""
    async with scripted_peer(served) as one, scripted_peer(copied) as other:
        listed = [
            f'url = "{peer.url}", engine = "vllm"{entry}'
            for peer, entry in zip((one, other), entries, strict=True)
        ]
        router = Router(decode(shadow_text(*listed, shadow=shadow, more=more), "test.toml"))
        flow = ShadowFlow(router, [one, other])
        router.inference._observer = flow.events.append
        counts = flow.shadows._observer

        def observe(event: Copied) -> None:
            counts(event)
            flow.copied.append(event)

        flow.shadows._observer = observe
        try:
            yield flow
            await flow.copies_over()
            await flow.at_rest()
        finally:
            await router.close()
        assert (flow.shadows.open, flow.lane.open, flow.lane.held_bytes) == (0, 0, 0)


def beside(
    test: Callable[[ShadowFlow], Awaitable[None]],
    served: Script,
    copied: Script,
    *,
    shadow: str = ALL,
    more: str = "",
    entries: tuple[str, str] = ("", ""),
    may_say: str = "nothing",
) -> None:
    """Run `test` over a replica of each version; nothing may be left behind, or complain but as it may."""

    async def run() -> None:
        async with shadow_flow(served, copied, shadow=shadow, more=more, entries=entries) as flow:
            await test(flow)

    with StrictLoop() as loop:
        loop.run(run(), may_say=may_say)
