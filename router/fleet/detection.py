"""What an engine process says of itself, and whether that is what the configuration says of it.

No single question tells the four engines apart. All are asked, and what was configured is never
overridden: a difference is a warning.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from router.fleet.control_client import ControlClient, NoAnswer
from router.fleet.stations import Alarm, Station

PATHS = ("/v1/models", "/version", "/info", "/v2")

OWNERS: Mapping[str, str] = {
    "vllm": "vllm",
    "tensorrt_llm": "trtllm",
    "Triton Inference Server": "triton",
}
"""`owned_by` of `/v1/models` where it names the engine; TGI puts the model's name there."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

MAX_IDS = 64
MAX_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was found. `engine` is None where nothing known answered; `model_ids` in the engine's order."""

    engine: str | None = None
    engine_version: str | None = None
    model_ids: tuple[str, ...] = ()


class Identification:
    """Asks one process until it answers, and once more whenever it may have begun anew."""

    def __init__(
        self,
        client: ControlClient,
        station: Station,
        timeout_s: Callable[[], float],
        told: Callable[[Seen], None],
    ) -> None:
        self.seen: Seen | None = None
        """The last answer."""
        self._client = client
        self._station = station
        self._timeout_s = timeout_s
        self._told = told
        self._alarm = Alarm()

    def again(self) -> None:
        self._alarm.ring()

    async def run(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(NoAnswer),
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            sleep=self._alarm.pause,
        )
        while True:
            seen: Seen = await retrying(detect, self._client, self._station, self._timeout_s())
            self.seen = seen
            self._told(seen)
            await self._alarm.wait()


async def detect(client: ControlClient, station: Station, timeout_s: float) -> Seen:
    """Ask one process everything at once. Raises `NoAnswer` if it answers nothing at all."""
    results = await asyncio.gather(
        *(client.get(station.url + path, station.headers, timeout_s) for path in PATHS),
        return_exceptions=True,
    )
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures:
        if len(failures) == len(PATHS) or not isinstance(failure, NoAnswer):
            raise failure
    answers = {
        path: decoded
        for path, result in zip(PATHS, results, strict=True)
        if not isinstance(result, BaseException)
        and result.status == 200
        and (decoded := _decode(result.content)) is not None
    }
    return seen_in(answers)


def seen_in(answers: Mapping[str, Mapping[str, Any]]) -> Seen:
    """Read the JSON objects that were answered at `PATHS`."""
    models = answers.get("/v1/models", {}).get("data")
    entries = [entry for entry in models if isinstance(entry, dict)] if isinstance(models, list) else []
    ids = tuple(text for entry in entries[:MAX_IDS] if (text := _text(entry.get("id"))))
    engine = OWNERS.get(str(entries[0].get("owned_by"))) if entries else None
    info, server = answers.get("/info", {}), answers.get("/v2", {})
    if engine is None and {"model_id", "max_total_tokens", "router"} <= info.keys():
        own = _text(info["model_id"])
        return Seen(engine="tgi", engine_version=_text(info.get("version")), model_ids=(own,) if own else ids)
    if engine in (None, "triton") and {"name", "version", "extensions"} <= server.keys():
        return Seen(engine="triton", engine_version=_text(server["version"]), model_ids=ids)
    version = _text(answers.get("/version", {}).get("version"))
    return Seen(engine=engine, engine_version=version, model_ids=ids)


def mismatches(seen: Seen, *, engine: str, served_name: str) -> tuple[str, ...]:
    """Sentences about what was configured and is not so. A model is not looked for where names are free."""
    found = []
    if seen.engine is not None and seen.engine != engine:
        found.append(f"it is configured as {engine} but answers as {seen.engine}")
    if seen.model_ids and served_name and engine != "triton" and served_name not in seen.model_ids:
        others = ", ".join(map(repr, seen.model_ids[:5])) + (", …" if len(seen.model_ids) > 5 else "")
        found.append(f"it serves {others}, not {served_name!r}")
    return tuple(found)


def _decode(content: bytes) -> Mapping[str, Any] | None:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _text(value: object) -> str | None:
    return value[:MAX_TEXT] if isinstance(value, str) and value else None
