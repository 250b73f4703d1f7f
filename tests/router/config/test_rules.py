"""What does not fit together is found, wherever in the file its two halves stand."""

import pytest

from router.config.decode import decode
from tests.support.configs import MODEL, mistakes_in

OTHER = """
[models.o]
stable = "w1"
aliases = ["x"]
[models.o.versions.w1]
served_name = "org/o"
replicas = [ { url = "http://10.0.0.2:8000", engine = "tgi" } ]
"""

FIRST = "models.m.versions.v1.replicas[0]"
REPLICAS = 'replicas = [{ url = "http://10.0.0.1:8000", engine = "vllm" }]'
NOT_A_NAME = "must begin with a letter or digit and go on with letters, digits, '.', '_', '/' or '-'"

KEY = '[[keys]]\nid = "{id}"\ntenant = "t"\ndigest = "sha256:{digit:0>64}"\n'
LIMIT = '[[limits]]\nname = "{name}"\nconcurrency = 1\n'


def with_replicas(*replicas: str) -> str:
    """MODEL with its replicas one a line; the first stands at line 7 of the file."""
    return (
        MODEL.partition("replicas")[0]
        + "replicas = [\n"
        + "".join(f"{{ {each} }},\n" for each in replicas)
        + "]\n"
    )


CASES = {
    "a digest that nobody could say": (
        MODEL + f'expect = {{ tokenizer_sha256 = "{"a" * 64}" }}',
        (
            "7: models.m.versions.v1.expect.tokenizer_sha256: no engine says it; "
            'write the directory of the files too: artefact = "DIRECTORY"'
        ),
    ),
    "one port for both listeners": (
        "[server]\nport = 9000\n[admin]\nport = 9000" + MODEL,
        "4: admin.port: 9000 is the port of [server]; the admin listener needs one of its own",
    ),
    "one port, one of them on every address": (
        '[server]\nhost = "0.0.0.0"\nport = 8081' + MODEL,
        "1: admin.port: 8081 is the port of [server]; the admin listener needs one of its own",
    ),
    "an open admin listener": (
        '[admin]\nhost = "10.0.0.1"' + MODEL,
        '2: admin.host: without a token it must be loopback; write token = "env:TURNOUT_ADMIN_TOKEN"',
    ),
    "no model": ("[server]\nport = 9", "1: models: is missing: write at least one [models.NAME] table"),
    "a model name that pins": (
        OTHER.replace("models.o", 'models."o@w1"'),
        "2: models.\"o@w1\": 'o@w1' must not contain '@': it pins a version, as in 'model@v2'",
    ),
    "a model name with a role": (
        OTHER.replace("models.o", 'models."o:big"'),
        "2: models.\"o:big\": 'o:big' must not contain ':': it picks a role, as in 'model:stable'",
    ),
    "a version name with a space": (
        OTHER.replace("versions.w1", 'versions."w 1"').replace('stable = "w1"', 'stable = "w 1"'),
        f"5: models.o.versions.\"w 1\": 'w 1' {NOT_A_NAME}",
    ),
    "an alias that pins": (
        OTHER.replace('"x"', '"x@y"'),
        "4: models.o.aliases[0]: 'x@y' must not contain '@': it pins a version, as in 'model@v2'",
    ),
    "stable is no version": (
        OTHER.replace('stable = "w1"', 'stable = "w2"'),
        "3: models.o.stable: there is no version 'w2'; known: w1",
    ),
    "a weight for no version": (
        OTHER + "[models.o.split]\nweights = { w1 = 1, w9 = 1 }",
        "9: models.o.split.weights.w9: there is no version 'w9'; known: w1",
    ),
    "no weight at all": (
        OTHER + "[models.o.split]\nweights = { }",
        "9: models.o.split.weights: must not be empty",
    ),
    "a rule for no version": (
        OTHER
        + '[models.o.split]\nweights = { w1 = 1 }\nrules = [\n{ header = "a", equals = "1", version = "w" } ]',
        "11: models.o.split.rules[0].version: there is no version 'w'; did you mean 'w1'?",
    ),
    "a rule for no header": (
        OTHER
        + '[models.o.split]\nweights = { w1 = 1 }\nrules = [{ header = "a b", equals = "1", version = "w1" } ]',
        "10: models.o.split.rules[0].header: 'a b' is not a header name, such as 'x-beta'",
    ),
    "a shadow of no version": (
        OTHER + '[models.o.shadow]\nversion = "v3"',
        "9: models.o.shadow.version: there is no version 'v3'; known: w1",
    ),
    "canary steps that fall": (
        OTHER + "[models.o.canary]\nsteps = [5, 1, 100]",
        "9: models.o.canary.steps: must rise from above 0 to 100, such as [1, 5, 25, 50, 100]",
    ),
    "canary steps that end too early": (
        OTHER + "[models.o.canary]\nsteps = [5, 50]",
        "9: models.o.canary.steps: must rise from above 0 to 100, such as [1, 5, 25, 50, 100]",
    ),
    "no canary steps": (
        OTHER + "[models.o.canary]\nsteps = []",
        "9: models.o.canary.steps: must rise from above 0 to 100, such as [1, 5, 25, 50, 100]",
    ),
    "a rate of false rollbacks that is none": (
        OTHER + "[models.o.canary]\nfalse_rollback = 0.9",
        "9: models.o.canary.false_rollback: must be at most 0.5, got 0.9",
    ),
    "an alias that is its own model": (
        OTHER.replace('"x"', '"o"'),
        "4: models.o.aliases[0]: 'o' is a model's name already; write another name",
    ),
    "an alias that is another model": (
        OTHER.replace('"x"', '"m"') + MODEL,
        "4: models.o.aliases[0]: 'm' is a model's name already; write another name",
    ),
    "an alias of two models": (
        OTHER + MODEL.replace("[models.m]", '[models.m]\naliases = [\n"y",\n"x"]'),
        "12: models.m.aliases[1]: 'x' is an alias of 'o' already; write another name",
    ),
    "a model written twice": (
        OTHER + OTHER,
        "9: is not valid TOML: Cannot declare ('models', 'o') twice; a table can be written only once",
    ),
    "an unknown policy, near a table": (
        '[policies.mine]\nkind = "random"' + OTHER.replace('stable = "w1"', 'stable = "w1"\npolicy = "mnie"'),
        "5: models.o.policy: there is no policy 'mnie'; did you mean 'mine'?",
    ),
    "an unknown policy, near a kind": (
        OTHER.replace('stable = "w1"', 'policy = "round_robbin"\nstable = "w1"'),
        "3: models.o.policy: there is no policy 'round_robbin'; did you mean 'round_robin'?",
    ),
    "a table with the name of another kind": (
        '[policies.random]\nkind = "round_robin"' + MODEL,
        "1: policies.random: is the name of a kind; give a tuned 'round_robin' a name of its own",
    ),
    "a version that nobody serves": (
        '[models.m]\nstable = "v1"\n[models.m.versions.v1]\nserved_name = "m"',
        f"3: models.m.versions.v1.replicas: is missing; write {REPLICAS}",
    ),
    "both listed and discovered": (
        MODEL + '[models.m.versions.v1.discover]\nkind = "dns"\nhost = "h"\nport = 1\nengine = "tgi"',
        "7: models.m.versions.v1.discover: replicas are listed too; write either replicas or discover",
    ),
    "a replica twice": (
        with_replicas('url = "http://a:1", engine = "vllm"', 'url = "http://a:1", engine = "vllm"'),
        "8: models.m.versions.v1.replicas[1].url: 'http://a:1' is listed already, as replicas[0]",
    ),
    "a replica twice, with a slash": (
        with_replicas('url = "http://a:1", engine = "vllm"', 'url = "http://a:1/", engine = "vllm"'),
        "8: models.m.versions.v1.replicas[1].url: 'http://a:1' is listed already, as replicas[0]",
    ),
    "a replica of two engines": (
        with_replicas('url = "http://10.0.0.2:8000", engine = "vllm"') + OTHER,
        f"15: models.o.versions.w1.replicas[0].engine: http://10.0.0.2:8000 is 'vllm' at {FIRST}; write the same",
    ),
    "a replica of two names": (
        with_replicas('url = "http://10.0.0.2:8000", engine = "tgi", id = "big"') + OTHER,
        f"15: models.o.versions.w1.replicas[0].id: http://10.0.0.2:8000 is called 'big' at {FIRST}; write the same",
    ),
    "a name of two replicas": (
        with_replicas(
            'url = "http://a:1", engine = "tgi", id = "g"', 'url = "http://b:1", engine = "tgi", id = "g"'
        ),
        f"8: models.m.versions.v1.replicas[1].id: 'g' is the id of http://a:1 at {FIRST}; write another",
    ),
    "a triton option elsewhere": (
        with_replicas('url = "http://a:1", engine = "vllm", model_name = "m"'),
        "7: models.m.versions.v1.replicas[0].model_name: is for engine = 'triton', this replica is 'vllm'; remove it",
    ),
    "a look-up without a name": (
        OTHER.partition("replicas")[0]
        + '[models.o.versions.w1.discover]\nkind = "dns"\nport = 1\nengine = "tgi"',
        "7: models.o.versions.w1.discover.host: is missing: kind = 'dns' needs it",
    ),
    "an option of another look-up": (
        OTHER.partition("replicas")[0]
        + '[models.o.versions.w1.discover]\nkind = "kubernetes"\nport = 1\nengine = "tgi"\nselector = "a"\nhost = "h"',
        "12: models.o.versions.w1.discover.host: is not for kind = 'kubernetes'; remove it",
    ),
    "two keys of one name": (
        KEY.format(id="k", digit=1) + KEY.format(id="k", digit=2) + MODEL,
        "6: keys[1].id: is the same as in keys[0]; each needs its own",
    ),
    "one key twice": (
        KEY.format(id="k", digit=1) + KEY.format(id="l", digit=1) + MODEL,
        "8: keys[1].digest: is the same as in keys[0]; each needs its own",
    ),
    "two limits of one name": (
        LIMIT.format(name="l") + LIMIT.format(name="l") + MODEL,
        "5: limits[1].name: is the same as in limits[0]; each needs its own",
    ),
    "a key for no model": (
        KEY.format(id="k", digit=1) + 'models = ["m", "mm"]' + MODEL,
        "5: keys[0].models[1]: there is no model 'mm'; did you mean 'm'?",
    ),
    "a limit for no model": (
        LIMIT.format(name="l") + 'match = { model = "zzz" }' + MODEL,
        "4: limits[0].match.model: there is no model 'zzz'; known: m",
    ),
    "a limit for no version": (
        LIMIT.format(name="l") + 'match = { model = "m", version = "v7" }' + MODEL,
        "4: limits[0].match.version: there is no version 'v7'; known: v1",
    ),
    "a limit for no tenant": (
        KEY.format(id="k", digit=1) + LIMIT.format(name="l") + 'match = { tenant = "tt" }' + MODEL,
        "8: limits[0].match.tenant: there is no tenant 'tt'; did you mean 't'?",
    ),
    "a limit for no key": (
        KEY.format(id="kay", digit=1) + LIMIT.format(name="l") + 'match = { api_key = "key" }' + MODEL,
        "8: limits[0].match.api_key: there is no key 'key'; did you mean 'kay'?",
    ),
    "a bucket too large to be told": (
        '[[limits]]\nname = "l"\ntokens_per_minute = 1e18' + MODEL,
        "3: limits[0].tokens_per_minute: must be from 0.001 to 1000000000, got 1e+18",
    ),
    "a bucket that never fills": (
        '[[limits]]\nname = "l"\nrequests_per_minute = 1e-300' + MODEL,
        "3: limits[0].requests_per_minute: must be from 0.001 to 1000000000, got 1e-300",
    ),
    "a limit that limits nothing": (
        '[[limits]]\nname = "l"' + MODEL,
        "1: limits[0]: limits nothing; write requests_per_minute, tokens_per_minute or concurrency",
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_a_broken_rule(text: str, expected: str) -> None:
    """Each rule says where it is broken, in its own words, and breaking one breaks no other."""
    assert mistakes_in(text) == [f"t.toml:{expected}"]


@pytest.mark.parametrize(
    "text",
    [
        '[admin]\nhost = "::1"' + MODEL,
        '[admin]\nhost = "localhost"' + MODEL,
        '[admin]\nhost = "0.0.0.0"\ntoken = "env:SET"' + MODEL,
        "[server]\nport = 0\n[admin]\nport = 0" + MODEL,
        '[server]\nhost = "10.0.0.1"\nport = 8081' + MODEL,
        '[policies.random]\nkind = "random"' + MODEL,
        MODEL + OTHER.replace("10.0.0.2", "10.0.0.1").replace("tgi", "vllm"),
        MODEL.replace("models.m", 'models."org/m-8B.v1"'),
        MODEL.replace('"vllm"', '"triton", output = "delta", triton_layout = "llmapi", model_name = "x"'),
        MODEL + "[models.m.canary]\nsteps = [100]",
    ],
)
def test_what_is_allowed(text: str) -> None:
    """The near side of each rule: loopback by other names, one engine process behind two models, and so on."""
    assert decode(text, environ={"SET": "x"}).models


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[admin]\nhost = "10.0.0.1"\ntoken = 3' + MODEL, [":3: admin.token: expected"]),
        ('[[limits]]\nname = "l"\nconcurrency = "3"' + MODEL, [":3: limits[0].concurrency: expected"]),
        (
            OTHER.replace('"http://10.0.0.2:8000", engine = "tgi"', '"x", engine = "tig"'),
            [".url: must", ".engine: unk"],
        ),
        (OTHER.replace('stable = "w1"', "stable = 1"), [":3: models.o.stable: expected"]),
        (OTHER.replace('["x"]', '["x", 1, ""]'), [".aliases[1]: expected", ".aliases[2]: '' must begin"]),
        ("models = 1", [":1: models: expected a table"]),
        ("[models]\nm = 1", [":2: models.m: expected a table"]),
        (OTHER.partition("replicas")[0] + "discover = 1", [".discover: expected a table"]),
        (OTHER.partition("replicas")[0] + "replicas = 1", [".replicas: expected an array"]),
    ],
)
def test_no_complaint_about_what_stands_in(text: str, expected: list[str]) -> None:
    """A value that cannot be used is told once; what stands in for it breaks no rule."""
    found = mistakes_in(text)
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))
