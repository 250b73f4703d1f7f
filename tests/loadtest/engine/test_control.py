import asyncio

from tests.support.engine_client import engine, get, post


def test_another_process_can_script_faults() -> None:
    """Setting replaces the script, reading shows it with what it did, an empty list clears it."""

    async def main() -> None:
        async with engine("vllm") as running:
            reply = await post(running, "/_sim/faults", {"faults": ["status=503", "slow=2"], "seed": 4})
            assert reply.json() == {"faults": ["status=503", "slow=2"], "events": []}
            assert (await post(running, "/v1/completions", {"prompt": "Hi"})).status == 503
            (event,) = (await get(running, "/_sim/faults")).json()["events"]
            assert (event["fault"], event["path"]) == ("status=503", "/v1/completions")
            assert event["at_s"] > 0
            await post(running, "/_sim/faults", {})
            assert (await post(running, "/v1/completions", {"prompt": "Hi"})).status == 200

    asyncio.run(main())


def test_mistakes_are_refused_and_change_nothing() -> None:
    """A bad fault, an unknown field and broken JSON are 400, each saying why."""

    async def main() -> None:
        async with engine("vllm") as running:
            running.faults.set("slow=2")
            for body in ({"faults": ["reset@soon"]}, {"fault": []}, b"{"):
                reply = await post(running, "/_sim/faults", body)
                assert reply.status == 400 and reply.json()["error"]
            assert [fault.text for fault in running.faults.script] == ["slow=2"]

    asyncio.run(main())


def test_log_and_stats_from_outside() -> None:
    """What was received and what the engine did, as JSON."""

    async def main() -> None:
        async with engine("vllm") as running:
            await post(running, "/v1/completions", {"prompt": "Hi", "max_tokens": 3, "ignore_eos": True})
            first = (await get(running, "/_sim/log")).json()[0]
            assert (first["method"], first["path"], first["tokens"]) == ("POST", "/v1/completions", 3)
            assert '"prompt"' in first["body"] and first["ended_s"] >= first["arrived_s"]
            assert (await get(running, "/_sim/stats")).json()["generation_tokens"] == 3

    asyncio.run(main())
