"""Who is kept together by a split, and what names lead where under a release."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from policies.release.lifecycle import Phase, Release
from router.api.openai import RequestRules, read_request
from router.api.prompt_text import beginning_of
from router.api.request import Endpoint, InferenceRequest
from router.config.decode import decode
from router.control.keys import ANONYMOUS, Caller
from router.fleet.build import build_fleet
from router.fleet.traffic import disagreements, unit_of, with_traffic
from tests.support.versions import versions_text

CALLER = Caller("key-1", "search")
SYSTEM = {"role": "system", "content": "be brief"}


def request(
    endpoint: Endpoint = Endpoint.CHAT, *, headers: Mapping[str, str] | None = None, **members: object
) -> InferenceRequest:
    body = json.dumps({"model": "m", **members}).encode()
    return read_request(
        endpoint, "id", {"content-type": "application/json", **(headers or {})}, body, RequestRules()
    )


def chat(*said: str, **members: object) -> InferenceRequest:
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
    return request(messages=[SYSTEM, *messages], **members)


class TestUnits:
    def test_a_conversation_is_its_first_turns(self) -> None:
        first = unit_of("session", chat("hello"), CALLER)
        assert unit_of("session", chat("hello", "hi", "how are you?"), CALLER) == first
        assert unit_of("session", chat("good day"), CALLER) != first

    def test_tenants_are_apart(self) -> None:
        assert unit_of("session", chat("hello"), CALLER) != unit_of("session", chat("hello"), ANONYMOUS)

    @pytest.mark.parametrize("member", ["session_id", "conversation", "prompt_cache_key", "user"])
    def test_a_conversation_has_a_name_if_the_client_gives_one(self, member: str) -> None:
        one, other = (unit_of("session", chat(text, **{member: "s"}), CALLER) for text in ("a", "b"))
        assert one == other == "search\x00s"

    def test_the_header_goes_before_the_body(self) -> None:
        asked = request(messages=[SYSTEM], headers={"x-session-id": "h"}, user="u")
        assert unit_of("session", asked, CALLER) == "search\x00h"
        assert unit_of("user", asked, CALLER) == "search\x00u"
        assert unit_of("api_key", asked, CALLER) == "search\x00key-1"
        assert unit_of("request", asked, CALLER) == "id"

    def test_without_the_wished_one_it_is_the_nearest(self) -> None:
        """A key that nobody has would put all into one arm."""
        asked = request(messages=[SYSTEM], headers={"x-session-id": "h"})
        assert unit_of("user", asked, CALLER) == unit_of("api_key", asked, ANONYMOUS).replace(
            "anonymous", "search"
        )

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (request(Endpoint.COMPLETIONS, prompt="a"), request(Endpoint.COMPLETIONS, prompt="b")),
            (request(Endpoint.COMPLETIONS, prompt=[1, 2]), request(Endpoint.COMPLETIONS, prompt=[1, 3])),
            (
                request(Endpoint.MESSAGES, messages=[{"role": "user", "content": "a"}], system="x"),
                request(Endpoint.MESSAGES, messages=[{"role": "user", "content": "a"}], system="y"),
            ),
            (request(Endpoint.RESPONSES, input="a"), request(Endpoint.RESPONSES, input="b")),
        ],
    )
    def test_every_dialect_has_a_beginning(self, one: InferenceRequest, other: InferenceRequest) -> None:
        assert beginning_of(one)
        assert beginning_of(one) != beginning_of(other)

    def test_what_cannot_be_read_is_a_request_alone(self) -> None:
        asked = request(messages=[{"role": 1}])
        assert beginning_of(asked) is None
        assert unit_of("session", asked, CALLER) == "search\x00id"


class TestNames:
    CONFIG = decode(
        versions_text(
            {
                version: [f'url = "http://127.0.0.1:{port}", engine = "vllm"']
                for port, version in enumerate(["v1", "v2", "v3"], 1)
            },
            model='aliases = ["other"]\n[models.m.split]\nweights = { v1 = 80, v3 = 20 }',
        ),
        Path("t.toml"),
    )

    def versions(self, release: Release | None) -> dict[str, str]:
        from random import Random

        fleet = build_fleet(self.CONFIG, Random(1), b"k" * 32)
        releases = {} if release is None else {"m": release}
        fleet = with_traffic(fleet, self.CONFIG.models, releases)
        return {name: route.version for name, route in fleet.routes.items()} | {
            f"{version} has": str(weight) for version, weight in fleet.traffic["m"].weights.items()
        }

    def test_without_a_release(self) -> None:
        told = self.versions(None)
        assert (told["m"], told["other"], told["m:stable"], told["m@v2"]) == ("v1", "v1", "v1", "v2")
        assert "m:canary" not in told
        assert (told["v1 has"], told["v3 has"]) == ("8000", "2000")

    def test_under_a_release(self) -> None:
        told = self.versions(
            Release(stable="v1", declared="v1", phase=Phase.CANARY, canary="v2", share=2500, salt="s")
        )
        assert (told["m"], told["m:canary"], told["m:stable"]) == ("v1", "v2", "v1")
        assert (told["v1 has"], told["v2 has"], told["v3 has"]) == ("6000", "2000", "2000")

    def test_after_it(self) -> None:
        """What the file gives to its stable version goes to the one that is stable now."""
        told = self.versions(
            Release(stable="v2", declared="v1", phase=Phase.PROMOTED, canary="v2", previous="v1")
        )
        assert (told["m"], told["other"], told["m:stable"]) == ("v2", "v2", "v2")
        assert (told["v2 has"], told["v3 has"]) == ("8000", "2000")
        assert "m:canary" not in told

    def test_what_disagrees_is_told(self) -> None:
        release = Release(stable="v2", declared="v3", phase=Phase.PROMOTED)
        assert disagreements(self.CONFIG.models, {"m": release})["m"] == (
            "the configuration says that v1 is stable; by its release v2 is",
        )
