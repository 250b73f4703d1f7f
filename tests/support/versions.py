"""A model `m` of several versions, each of simulated engines of its own, and a router in front of them."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import httpx

from loadtest.engine.server import RunningEngine
from tests.support.routers import RunningRouter, running_router
from tests.support.simulated import replica_entry, simulated_engines


@dataclass(frozen=True, slots=True)
class RunningVersions:
    engines: Mapping[str, Sequence[RunningEngine]]
    running: RunningRouter
    client: httpx.AsyncClient

    async def chat(
        self, model: str = "m", *, headers: Mapping[str, str] | None = None, **more: object
    ) -> httpx.Response:
        body = {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}], **more}
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)

    async def version(self, model: str = "m", *, session: str | None = None, **more: object) -> str:
        """Which version answers; it must."""
        headers = {} if session is None else {"x-session-id": session}
        answer = await self.chat(model, headers=headers, **more)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-turnout-version"]


def versions_text(
    replicas: Mapping[str, Sequence[str]],
    *,
    stable: str = "v1",
    policy: str = "least_requests",
    server: str = "",
    model: str = "",
    top: str = "",
    more: Mapping[str, str] | None = None,
) -> str:
    """A configuration of one model `m`; `replicas` are inline tables by version.

    `top` are whole tables, `model` goes into [models.m] and below it, `more` into the tables of versions.
    """
    versions = ""
    for version, entries in replicas.items():
        listed = ", ".join(f"{{ {one} }}" for one in entries)
        versions += f"[models.m.versions.{version}]\nserved_name = 'served'\nreplicas = [{listed}]\n"
        versions += (more or {}).get(version, "") + "\n"
    return f"""
[server]
port = 0
settle_s = 0
access_log = "off"
{server}
[admin]
port = 0
{top}
[models.m]
stable = "{stable}"
policy = "{policy}"
{model}
{versions}
"""


@contextlib.asynccontextmanager
async def simulated_versions(
    *,
    policy: str = "least_requests",
    model: str = "",
    top: str = "",
    more: Mapping[str, str] | None = None,
    engine: Mapping[str, object] | None = None,
    **dialects: Sequence[str],
) -> AsyncIterator[RunningVersions]:
    """`v1=["vllm", "tgi"], v2=["vllm"]`."""
    async with contextlib.AsyncExitStack() as stack:
        options = {"speed": 100.0, **(engine or {})}
        engines = {
            version: await stack.enter_async_context(simulated_engines(*words, **options))
            for version, words in dialects.items()
        }
        entries = {version: list(map(replica_entry, each)) for version, each in engines.items()}
        running = await stack.enter_async_context(
            running_router(versions_text(entries, policy=policy, model=model, top=top, more=more))
        )
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=running.url, timeout=20))
        yield RunningVersions(engines, running, client)
