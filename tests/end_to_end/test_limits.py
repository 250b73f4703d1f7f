"""Keys and limits as clients meet them: over sockets, with the official client, from several processes."""

import asyncio
import hashlib
import json
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, AuthenticationError, PermissionDeniedError, RateLimitError

from tests.support.flow import WHOLE
from tests.support.loops import run_strictly
from tests.support.peers import PeerConnection, answer, scripted_peer
from tests.support.raw_client import CHAT, get, post, raw_client
from tests.support.redis_server import redis_server
from tests.support.routers import config_text, running_router
from tests.support.simulated import replica_entry, simulated_engines, simulated_fleet
from tests.support.worker_cases import ask, of_each_worker
from tests.support.workers import workers

SAY = [{"role": "user", "content": "hello"}]
TEAM, OTHER = "sk-turnout-team", "sk-turnout-other"


def key(name: str, secret: str, more: str = "") -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f'[[keys]]\nid = "{name}"\ntenant = "{name}"\ndigest = "sha256:{digest}"\n{more}\n'


def limit(name: str, **options: object) -> str:
    lines = "".join(f"{option} = {json.dumps(value)}\n" for option, value in options.items())
    return f'[[limits]]\nname = "{name}"\n{lines}'


# ---- keys ----


def test_keys_open_what_they_are_for() -> None:
    """No key and a wrong one are told the same; a key for other models sees none of these."""

    async def run() -> None:
        keys = key("team", TEAM) + key("other", OTHER, 'models = ["n"]')
        other_model = '[models.n]\nstable="v1"\n[models.n.versions.v1]\nserved_name="served"\n'
        async with simulated_engines("vllm") as (engine,):
            models = f"{other_model}replicas = [{{ {replica_entry(engine)} }}]\n"
            async with running_router(config_text(replica_entry(engine), more=keys + models)) as running:
                base_url = f"{running.url}/v1"

                async def refused(secret: str) -> AuthenticationError:
                    async with AsyncOpenAI(base_url=base_url, api_key=secret) as client:
                        with pytest.raises(AuthenticationError) as raised:
                            await client.chat.completions.create(model="m", messages=SAY)
                        with pytest.raises(AuthenticationError):
                            await client.models.list()
                    assert raised.value.code == "invalid_api_key"
                    return raised.value

                assert str(await refused("nonsense")) == str(await refused(TEAM[:-1]))
                async with AsyncOpenAI(base_url=base_url, api_key=TEAM) as client:
                    answer = await client.chat.completions.create(model="m", messages=SAY, max_tokens=4)
                    assert answer.choices[0].finish_reason == "length"
                    assert {model.id async for model in client.models.list()} == {"m", "m@v1", "n", "n@v1"}
                async with AsyncOpenAI(base_url=base_url, api_key=OTHER) as client:
                    assert {model.id async for model in client.models.list()} == {"n", "n@v1"}
                    said = set()
                    for model in ("m", "nothing"):
                        with pytest.raises(PermissionDeniedError) as forbidden:
                            await client.chat.completions.create(model=model, messages=SAY)
                        said.add(str(forbidden.value).replace(repr(model), "X"))
                    assert len(said) == 1

    run_strictly(run())


def test_a_client_key_stays_here_and_the_replica_gets_its_own() -> None:
    async def run() -> None:
        heads: list[bytes] = []

        async def replica(connection: PeerConnection) -> None:
            while True:
                head, _ = await connection.request()
                heads.append(head)
                await connection.send(answer(WHOLE))

        async with scripted_peer(replica) as peer:
            entry = f'url = "{peer.url}", engine = "vllm", api_key = "replica-secret"'
            async with (
                running_router(config_text(entry, more=key("team", TEAM))) as running,
                raw_client(running.port) as client,
            ):
                given = b"authorization: Bearer %b\r\nx-api-key: %b\r\n" % (TEAM.encode(), TEAM.encode())
                assert (await ask(client, post(headers=given))).status == 200
                head = next(head for head in heads if head.startswith(b"POST"))
                assert b"authorization: Bearer replica-secret\r\n" in head
                assert TEAM.encode() not in head

    run_strictly(run())


@pytest.mark.parametrize(
    "head",
    [
        b"expect: 100-continue\r\ncontent-length: 900000",
        b"content-length: 1000000",
        b"transfer-encoding: chunked",
    ],
)
def test_nobody_sends_much_without_a_key(head: bytes) -> None:
    """Refused by its head alone: no byte of the body is waited for, and none is asked for."""

    async def run() -> None:
        async with (
            simulated_fleet("vllm", more=key("team", TEAM)) as fleet,
            raw_client(fleet.running.port) as client,
        ):
            begin = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
            await client.send(begin + head + b"\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.code) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"

    run_strictly(run())


@pytest.mark.parametrize("path", [b"/livez", b"/readyz", b"/health"])
def test_whether_the_router_is_well_is_no_secret(path: bytes) -> None:
    async def run() -> None:
        async with (
            simulated_fleet("vllm", more=key("team", TEAM)) as fleet,
            raw_client(fleet.running.port) as client,
        ):
            assert (await ask(client, get(path))).status == 200

    run_strictly(run())


# ---- the official client ----


def test_the_official_client_waits_once_and_then_succeeds() -> None:
    """Its own retries, left at their defaults: one refusal, one wait of the time it was told, one success."""

    async def run() -> None:
        more = limit("l", requests_per_minute=60, burst_s=1)
        async with simulated_fleet("vllm", more=more) as fleet:
            statuses: list[int] = []

            async def note(response: httpx.Response) -> None:
                statuses.append(response.status_code)

            http = httpx.AsyncClient(event_hooks={"response": [note]}, trust_env=False)
            async with AsyncOpenAI(base_url=fleet.base_url, api_key="any", http_client=http) as client:
                for _ in range(3):
                    await client.chat.completions.create(model="m", messages=SAY, max_tokens=2)
            assert statuses == [200, 429, 200, 429, 200]

    run_strictly(run())


def test_who_waits_as_long_as_told_is_let_in() -> None:
    """A hundred refusals: each time `retry-after-ms` is enough."""

    async def run() -> None:
        more = limit("l", per=["tenant"], requests_per_minute=3000, tokens_per_minute=60_000, burst_s=0.1)
        async with simulated_fleet("vllm", more=more) as fleet, raw_client(fleet.running.port) as client:
            refusals = 0
            while refusals < 100:
                answer = await ask(client, post())
                if answer.status == 429:
                    refusals += 1
                    begun = time.monotonic()
                    wait_s = int(answer.headers["retry-after-ms"]) / 1000
                    while time.monotonic() < begun + wait_s:
                        await asyncio.sleep(wait_s / 4)
                    answer = await ask(client, post())
                assert answer.status == 200

    run_strictly(run())


def test_a_refusal_is_a_rate_limit_error() -> None:
    async def run() -> None:
        async with (
            simulated_fleet("vllm", more=limit("l", requests_per_minute=1)) as fleet,
            AsyncOpenAI(base_url=fleet.base_url, api_key="any", max_retries=0) as client,
        ):
            raw = await client.chat.completions.with_raw_response.create(model="m", messages=SAY)
            assert raw.headers["x-ratelimit-remaining-requests"] == "0"
            with pytest.raises(RateLimitError) as raised:
                await client.chat.completions.create(model="m", messages=SAY)
            assert raised.value.code == "rate_limit_exceeded"
            assert raised.value.response.headers["x-ratelimit-limit-requests"] == "1"

    run_strictly(run())


# ---- every way in ----


PATHS = {
    b"/v1/chat/completions": CHAT,
    b"/v1/completions": b'{"model":"m","prompt":"hi","max_tokens":4}',
    b"/v1/embeddings": b'{"model":"m","input":"hi"}',
    b"/v1/responses": b'{"model":"m","input":"hi","max_output_tokens":4}',
    b"/v1/messages": b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":4}',
    b"/tokenize": b'{"model":"m","prompt":"hi"}',
    b"/generate": b'{"inputs":"hi","parameters":{"max_new_tokens":4}}',
}


@pytest.mark.parametrize("path", PATHS)
def test_nothing_gets_round_an_exhausted_budget(path: bytes) -> None:
    """Whatever is asked for: with no tokens left it is refused."""

    async def run() -> None:
        more = limit("l", tokens_per_minute=1, burst_s=1800)
        async with simulated_fleet("vllm", more=more) as fleet, raw_client(fleet.running.port) as client:
            for _ in range(3):
                await ask(
                    client, post(CHAT.replace(b'"max_tokens":8', b'"max_tokens":400,"ignore_eos":true'))
                )
            answer = await ask(client, post(PATHS[path], path=path))
            assert answer.status == 429

    run_strictly(run())


# ---- several processes ----


def test_workers_count_together(tmp_path: Path) -> None:
    """Two workers without Redis: a budget of 20 and 3 slots are one budget and 3 slots."""

    async def run() -> None:
        more = limit("l", requests_per_minute=1, burst_s=1200) + limit("c", concurrency=3)
        async with simulated_engines("vllm") as engines:
            text = config_text(*map(replica_entry, engines), server="workers = 2", more=more)
            async with workers(text, tmp_path) as router, of_each_worker(router, each=2) as (one, other):
                said: Counter[int] = Counter()
                for _ in range(10):
                    for client in (one[0], other[0], one[1], other[1]):
                        said[(await ask(client, post())).status] += 1
                assert said == {200: 20, 429: 20}
                shown = (await router.admin.get("/api/limits")).json()
                (bucket,) = shown["buckets"]
                assert (bucket["limit"], bucket["remaining"], bucket["most"]) == ("l", 0, 20)
                await router.until_metric("turnout_limit_decisions_total", 20, limit="l", decision="refused")

    run_strictly(run())


def test_routers_count_together_in_redis() -> None:
    async def run() -> None:
        with redis_server() as server:
            more = f'[redis]\nurl = "{server.url}"\n' + limit("l", requests_per_minute=1, burst_s=600)
            async with simulated_engines("vllm") as engines:
                text = config_text(*map(replica_entry, engines), more=more)
                async with (
                    running_router(text) as one,
                    running_router(text) as other,
                    raw_client(one.port) as here,
                    raw_client(other.port) as there,
                ):
                    said = Counter([(await ask(client, post())).status for client in (here, there) * 10])
                    assert said == {200: 10, 429: 10}

    run_strictly(run())


def test_requests_are_served_while_redis_is_away() -> None:
    """Killed and started again: no error, and exact again when it is back."""

    async def run() -> None:
        with redis_server() as server:
            more = f'[redis]\nurl = "{server.url}"\n' + limit("l", requests_per_minute=60, burst_s=600)
            async with simulated_engines("vllm") as engines:
                text = config_text(*map(replica_entry, engines), more=more)
                async with running_router(text) as running, raw_client(running.port) as client:
                    assert [(await ask(client, post())).status for _ in range(5)] == [200] * 5
                    server.stop()
                    assert [(await ask(client, post())).status for _ in range(20)] == [200] * 20
                    async with httpx.AsyncClient(base_url=running.admin_url, trust_env=False) as admin:
                        assert not (await admin.get("/api/limits")).json()["store"]["healthy"]
                        server.start()
                        async with asyncio.timeout(10):
                            while not (await admin.get("/api/limits")).json()["store"]["healthy"]:
                                await asyncio.sleep(0.05)
                    assert (await ask(client, post())).status == 200

    run_strictly(run())


# ---- what is shown ----


def test_limits_are_shown_and_explained() -> None:
    async def run() -> None:
        more = key("team", TEAM) + limit(
            "l", per=["tenant"], requests_per_minute=1, burst_s=120, concurrency=2
        )
        async with simulated_fleet("vllm", more=more) as fleet, raw_client(fleet.running.port) as client:
            mine = b"authorization: bearer %b\r\n" % TEAM.encode()
            for _ in range(3):
                await ask(client, post(headers=mine))
            async with httpx.AsyncClient(base_url=fleet.running.admin_url, trust_env=False) as admin:
                shown = (await admin.get("/api/limits")).json()
                assert shown["limits"] == ["l"]
                (bucket,) = shown["buckets"]
                assert bucket["subject"] == {"tenant": "team"}
                assert (bucket["kind"], bucket["most"], bucket["remaining"]) == ("requests", 2, 0)
                assert (await admin.get("/api/status")).json()["limits"]["buckets"]
                told = (await admin.post("/api/explain?key=team", content=CHAT)).json()["limits"]
                requests, slots = told
                assert not requests["admits"]
                assert 0 < requests["wait_s"] <= 60
                assert slots == {
                    "limit": "l", "kind": "concurrency", "takes": 1, "remaining": 2, "admits": True, "wait_s": 0.0,
                }  # fmt: skip
                nobody = await admin.post("/api/explain?key=nobody", content=CHAT)
                assert nobody.status_code == 400
                metrics = (await admin.get("/metrics")).text
                assert 'turnout_limit_decisions_total{decision="refused",limit="l"} 1.0' in metrics

    run_strictly(run())
