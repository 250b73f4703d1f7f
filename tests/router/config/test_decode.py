"""What a file says becomes typed values; what is wrong in it is told all at once, in words, with its line."""

from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import pytest

from router.config.decode import ConfigError, decode, load
from router.config.model import DEFAULT_POLICY, Config, PolicyConfig
from tests.support.configs import MODEL, mistakes_in

KINDS = "expected_latency, least_requests, pipeline, power_of_two, prefix_affinity, random, round_robin, session_affinity"

KEY = '[[keys]]\nid = "a"\ntenant = "t"\ndigest = "sha256:' + 64 * "0" + '"\nexpires = '


def test_smallest_file() -> None:
    """A model with one replica is enough; everything else has its default."""
    config = decode(MODEL, environ={})
    model = config.models["m"]
    assert model.versions["v1"].replicas[0].url == "http://10.0.0.1:8000"
    assert model.policy == DEFAULT_POLICY
    assert config == Config(models=config.models)


def test_values_of_every_type() -> None:
    """Numbers, strings, booleans, arrays, tables and optional values arrive as the model declares them."""
    text = """
        [timeouts]
        connect_s = 2
        [retries]
        continue_streams = false
        [policies.mine]
        kind = "power_of_two"
        choices = 3
        [[limits]]
        name = "l"
        per = ["tenant", "model"]
        match = { tenant = "search" }
        concurrency = 4
    """
    config = decode(dedent(text) + MODEL, environ={})
    assert config.timeouts.connect_s == 2.0
    assert type(config.timeouts.connect_s) is float
    assert config.retries.continue_streams is False
    assert config.policies["mine"] == PolicyConfig(name="mine", kind="power_of_two", options={"choices": 3})
    assert config.limits[0].per == ("tenant", "model")
    assert config.limits[0].match == {"tenant": "search"}
    assert config.limits[0].requests_per_minute is None


def test_options_of_a_policy_include_its_defaults() -> None:
    """Two tables that mean the same are equal."""
    written = decode('[policies.a]\nkind = "power_of_two"\nchoices = 2\n' + MODEL, environ={})
    implied = decode('[policies.a]\nkind = "power_of_two"\n' + MODEL, environ={})
    assert written == implied


def test_policy_of_a_model() -> None:
    """A model's policy is a table of that name, else the kind itself."""
    config = decode(
        '[policies.mine]\nkind = "random"\n' + MODEL.replace('"v1"', '"v1"\npolicy = "mine"', 1), environ={}
    )
    assert config.policy_of(config.models["m"]) == PolicyConfig(name="mine", kind="random", options={})
    plain = decode(MODEL, environ={})
    assert plain.policy_of(plain.models["m"]) == PolicyConfig(name=DEFAULT_POLICY, kind=DEFAULT_POLICY)


@pytest.mark.parametrize(
    "written",
    [
        "2030-01-01T00:00:00Z",
        "2030-01-01 02:00:00+02:00",
        '"2030-01-01T00:00:00Z"',
        '"2029-12-31t19:00:00.000-05:00"',
        '"2030-01-01 00:00:00z"',
    ],
)
def test_a_moment(written: str) -> None:
    """As TOML has it, or RFC 3339 in a string; the same moment, whatever its offset."""
    (key,) = decode(f"{KEY}{written}\n{MODEL}", environ={}).keys
    assert key.expires == datetime(2030, 1, 1, tzinfo=UTC)


CASES = {
    "unknown option, near a known one": (
        "[server]\nprot = 1",
        ":2: server.prot: unknown option; did you mean 'port'?",
    ),
    "unknown option, near none": (
        "[timeouts]\nzzz = 1",
        ":2: timeouts.zzz: unknown option; known: between_tokens_s, connect_s, first_token_s, total_s",
    ),
    "unknown table": ("[sever]\nport = 1", ":1: sever: unknown option; did you mean 'server'?"),
    "text for a whole number": (
        '[server]\nport = "8080"',
        ":2: server.port: expected a whole number such as 8080, got a string: write it without quotes",
    ),
    "text for a number": (
        '[timeouts]\ntotal_s = "ten"',
        ":2: timeouts.total_s: expected a number such as 900.0, got a string",
    ),
    "a fraction for a whole number": (
        "[server]\nworkers = 1.5",
        ":2: server.workers: expected a whole number such as 1, got a number",
    ),
    "true for a whole number": (
        "[server]\nport = true",
        ":2: server.port: expected a whole number such as 8080, got true",
    ),
    "text for true": (
        '[retries]\ncontinue_streams = "true"',
        ":2: retries.continue_streams: expected true or false, got a string: write it without quotes",
    ),
    "a number for text": (
        "[server]\nhost = 1",
        ':2: server.host: expected a string such as "127.0.0.1", got a whole number',
    ),
    "a date": (
        "[server]\nhost = 2020-01-01",
        ':2: server.host: expected a string such as "127.0.0.1", got a date or time',
    ),
    "a value for a table": ("server = 1", ":1: server: expected a table, got a whole number"),
    "a table for an array": ("[keys]\nid = 1", ":1: keys: expected an array, got a table"),
    "no number": (
        "[timeouts]\ntotal_s = nan",
        ":2: timeouts.total_s: expected a finite number such as 900.0, got nan",
    ),
    "too large for a number": (
        f"[timeouts]\ntotal_s = 1{'0' * 400}",
        ":2: timeouts.total_s: is too large for a number",
    ),
    "below a range": ("[server]\nport = -1", ":2: server.port: must be from 0 to 65535, got -1"),
    "above a range": (
        "[retries]\nmax_attempts = 11",
        ":2: retries.max_attempts: must be from 1 to 10, got 11",
    ),
    "not above": ("[timeouts]\nconnect_s = 0", ":2: timeouts.connect_s: must be more than 0, got 0"),
    "too small": ("[server]\nmax_headers = 3", ":2: server.max_headers: must be at least 8, got 3"),
    "empty text": ('[server]\nhost = ""', ":2: server.host: must not be empty"),
    "unknown choice, near a known one": (
        '[server]\nlog_level = "warn"',
        ":2: server.log_level: unknown value 'warn'; did you mean 'warning'?",
    ),
    "unknown choice, near none": (
        '[server]\nlog_level = "loud"',
        ":2: server.log_level: unknown value 'loud'; known: debug, error, info, warning",
    ),
    "a variable that is not set": (
        '[admin]\ntoken = "env:MISSING"',
        ":2: admin.token: the environment variable 'MISSING' is not set",
    ),
    "an empty variable": (
        '[admin]\ntoken = "env:EMPTY"',
        ":2: admin.token: the environment variable 'EMPTY' is empty",
    ),
    "an empty secret": ('[admin]\ntoken = ""', ":2: admin.token: the secret is empty"),
    "a secret that is no text": (
        "[admin]\ntoken = 1234",
        ":2: admin.token: expected a string, 'env:NAME' or 'file:PATH', got a whole number",
    ),
    "a secret file that is not there": (
        '[admin]\ntoken = "file:none"',
        ":2: admin.token: the file 'none' cannot be read: No such file or directory",
    ),
    "no Redis URL, and it is not repeated": (
        '[redis]\nurl = "http://:passw0rd@h"',
        ":2: redis.url: must be a URL such as 'redis://127.0.0.1:6379/0', or 'rediss://' with TLS",
    ),
    "a missing option": (
        "[redis]\ntimeout_ms = 1",
        ':1: redis.url: is missing; write url = "redis://127.0.0.1:6379/0"',
    ),
    "a policy without kind": (
        "[policies.p]\nchoices = 1",
        f':1: policies.p: has no kind: write kind = "…"; known: {KINDS}',
    ),
    "a policy of an unknown kind": (
        '[policies.p]\nkind = "power_of_tow"',
        ":2: policies.p.kind: unknown value 'power_of_tow'; did you mean 'power_of_two'?",
    ),
    "a policy's own rule": (
        '[policies.p]\nkind = "power_of_two"\nchoices = 1',
        ":3: policies.p.choices: must be at least 2, got 1; 1 is the policy 'random'",
    ),
    "an option that a policy has not": (
        '[policies.p]\nkind = "power_of_two"\nchioces = 2',
        ":3: policies.p.chioces: unknown option; did you mean 'choices'?",
    ),
    "a wrong type in a policy": (
        '[policies.p]\nkind = "power_of_two"\nchoices = "2"',
        ":3: policies.p.choices: expected a whole number such as 2, got a string: write it without quotes",
    ),
    "an unknown scorer of a pipeline": (
        '[policies.p]\nkind = "pipeline"\nscorers = { prefx = 3, queue = 2 }',
        ":3: policies.p.scorers.prefx: unknown option; did you mean 'prefix'?",
    ),
    "a scorer's weight that is no number": (
        '[policies.p]\nkind = "pipeline"\nscorers = { prefix = "3" }',
        ":3: policies.p.scorers.prefix: expected a number, got a string: write it without quotes",
    ),
    "a scorer that counts less than nothing": (
        '[policies.p]\nkind = "pipeline"\nscorers = { prefix = -1 }',
        ":3: policies.p.scorers: must have weights of 0 or more, got {'prefix': -1.0}",
    ),
    "an unknown filter of a pipeline": (
        '[policies.p]\nkind = "pipeline"\nfilters = ["utilisation", "prefix-affinity"]',
        ":3: policies.p.filters[1]: unknown value 'prefix-affinity'; did you mean 'prefix_affinity'?",
    ),
    "an unknown picker of a pipeline": (
        '[policies.p]\nkind = "pipeline"\npicker = "maxscore"',
        ":3: policies.p.picker: unknown value 'maxscore'; did you mean 'max_score'?",
    ),
    "a parameter of a pipeline out of its range": (
        '[policies.p]\nkind = "pipeline"\naffinity_threshold = 80',
        ":3: policies.p.affinity_threshold: must be 0 to 1, got 80.0",
    ),
    "a digest of nothing": (
        (
            '[[keys]]\nid = "a"\ntenant = "t"\n'
            'digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"'
        ),
        ":4: keys[0].digest: is the digest of an empty key, which everybody has; make one with `turnout keys new`",
    ),
    "a digest that is none": (
        '[[keys]]\nid = "a"\ntenant = "t"\ndigest = "sha256:12"',
        ":4: keys[0].digest: must be 'sha256:' and 64 lower-case hexadecimal digits, as `turnout keys new` prints it",
    ),
    "a moment without an offset": (
        KEY + "2030-01-01T12:00:00",
        ":5: keys[0].expires: has no offset from UTC; write 2030-01-01T12:00:00Z if UTC is meant",
    ),
    "a moment without an offset, as text": (
        KEY + '"2030-01-01 12:00:00"',
        ":5: keys[0].expires: has no offset from UTC; write 2030-01-01T12:00:00Z if UTC is meant",
    ),
    "a day for a moment": (
        KEY + "2030-01-01",
        ":5: keys[0].expires: has no time of day; write 2030-01-01T00:00:00Z for its beginning in UTC",
    ),
    "a day for a moment, as text": (
        KEY + '"2030-01-01"',
        ":5: keys[0].expires: has no time of day; write 2030-01-01T00:00:00Z for its beginning in UTC",
    ),
    "a time for a moment": (
        KEY + "12:00:00",
        ":5: keys[0].expires: expected a date and time such as 2030-01-01T00:00:00+00:00, got a date or time",
    ),
    "a text that is no moment": (
        KEY + '"2030-13-01T00:00:00Z"',
        ":5: keys[0].expires: expected a date and time such as 2030-01-01T00:00:00+00:00, got a string",
    ),
    "a number for a moment": (
        KEY + "1893456000",
        ":5: keys[0].expires: expected a date and time such as 2030-01-01T00:00:00+00:00, got a whole number",
    ),
    "an unknown subject": (
        '[[limits]]\nname = "l"\nconcurrency = 1\nper = ["tenant", "tenat"]',
        ":4: limits[0].per[1]: unknown value 'tenat'; did you mean 'tenant'?",
    ),
    "an unknown subject to match": (
        '[[limits]]\nname = "l"\nconcurrency = 1\nmatch = { tenat = "a" }',
        ":4: limits[0].match.tenat: unknown option; did you mean 'tenant'?",
    ),
    "a label with a space": (
        '[[limits]]\nname = "per tenant"\nconcurrency = 1',
        ":2: limits[0].name: 'per tenant' must be 1 to 128 letters, digits, '.', '_', '/', ':' or '-'",
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_one_mistake(text: str, expected: str) -> None:
    """Each way to get a value wrong has its own words, at its own line, and causes no second complaint."""
    assert mistakes_in(text + MODEL) == [f"t.toml{expected}"]


REPLICA_CASES = {
    "an unknown engine": (
        'url = "http://a:1", engine = "vlm"',
        "engine: unknown value 'vlm'; did you mean 'vllm'?",
    ),
    "no engine": ('url = "http://a:1"', 'engine: is missing; write engine = "vllm"'),
    "no scheme": ('url = "a:1", engine = "vllm"', "url: must be a URL such as 'http://10.0.0.1:8000'"),
    "broken brackets": (
        'url = "http://[::1", engine = "vllm"',
        "url: must be a URL such as 'http://10.0.0.1:8000'",
    ),
    "a port that is none": (
        'url = "http://a:80800", engine = "vllm"',
        "url: must be a URL such as 'http://10.0.0.1:8000'",
    ),
    "a control character": (
        'url = "http://a\\r\\nx:1", engine = "vllm"',
        "url: must be a URL such as 'http://10.0.0.1:8000'",
    ),
    "a path": (
        'url = "http://a:1/v1", engine = "vllm"',
        "url: must be scheme, host and port only: write 'http://a:1'",
    ),
    "a password, which is not repeated": (
        'url = "http://u:passw0rd@a:1", engine = "vllm"',
        "url: must not carry a user or password: write the replica's key as api_key",
    ),
    "no weight": ('url = "http://a:1", engine = "vllm", weight = 0', "weight: must be more than 0, got 0"),
    "a misspelt option": (
        'url = "http://a:1", engine = "vllm", wieght = 1',
        "wieght: unknown option; did you mean 'weight'?",
    ),
    "a path for a template": (
        'url = "http://a:1", engine = "triton", chat_template = "chat.jinja"',
        "chat_template: is neither a Jinja template nor 'file:PATH'; did you mean 'file:chat.jinja'?",
    ),
    "a triton option elsewhere": (
        'url = "http://a:1", engine = "vllm", output = "delta"',
        "output: is for engine = 'triton', this replica is 'vllm'; remove it",
    ),
}


@pytest.mark.parametrize(("replica", "expected"), REPLICA_CASES.values(), ids=REPLICA_CASES.keys())
def test_a_mistake_in_a_replica(replica: str, expected: str) -> None:
    """In a list over several lines, the line is that of the replica."""
    model = MODEL.replace("[ {", "[\n  {").replace("} ]", f"}},\n  {{ {replica} }},\n]")
    assert mistakes_in(model) == [f"t.toml:8: models.m.versions.v1.replicas[1].{expected}"]


def test_every_mistake_at_once() -> None:
    """Mistakes of all sorts are told together, in the order of the file; none hides another or repeats."""
    text = """\
        [server]
        prot = 1
        workers = "two"
        [models.m]
        stable = "v2"
        policy = "fastest"
        aliases = ["m"]
        [models.m.versions.v1]
        served_name = ""
        replicas = [
          { url = "http://a:1", engine = "vlm" },
          7,
          { url = "http://a:1", engine = "vllm", api_key = "env:MISSING" },
        ]
        [models.m.split]
        weights = { v1 = 0, v3 = 1, v1x = "a" }
        [models.n]
    """
    assert mistakes_in(text) == [
        "t.toml:2: server.prot: unknown option; did you mean 'port'?",
        "t.toml:3: server.workers: expected a whole number such as 1, got a string",
        "t.toml:5: models.m.stable: there is no version 'v2'; known: v1",
        f"t.toml:6: models.m.policy: there is no policy 'fastest'; known: {KINDS}",
        "t.toml:7: models.m.aliases[0]: 'm' is a model's name already; write another name",
        "t.toml:9: models.m.versions.v1.served_name: must not be empty",
        "t.toml:11: models.m.versions.v1.replicas[0].engine: unknown value 'vlm'; did you mean 'vllm'?",
        "t.toml:12: models.m.versions.v1.replicas[1]: expected a table, got a whole number",
        "t.toml:13: models.m.versions.v1.replicas[2].api_key: the environment variable 'MISSING' is not set",
        "t.toml:13: models.m.versions.v1.replicas[2].url: 'http://a:1' is listed already, as replicas[0]",
        "t.toml:16: models.m.split.weights.v1x: expected a number, got a string",
        "t.toml:16: models.m.split.weights.v1: must be more than 0, got 0",
        "t.toml:16: models.m.split.weights.v3: there is no version 'v3'; known: v1",
        't.toml:17: models.n.stable: is missing; write stable = "v1"',
        "t.toml:17: models.n.versions: is missing. Its builds: at least one [models.MODEL.versions.VERSION] table.",
    ]


SYNTAX_CASES = {
    "no value": (
        "a = 1\nb =",
        ":2: is not valid TOML: Invalid value; text stands in quotes, numbers, true and false do not",
    ),
    "no quotes": (
        "[server]\nhost = localhost\n",
        ":2: is not valid TOML: Invalid value; text stands in quotes, numbers, true and false do not",
    ),
    "no equals sign": (
        "a = 1\nb: 2",
        ":2: is not valid TOML: Expected '=' after a key in a key/value pair; an option is written as name = value",
    ),
    "written twice": (
        "a = 1\n\na = 2",
        ":3: is not valid TOML: Cannot overwrite a value; an option can be written only once",
    ),
    "a table twice": (
        "[a]\n[b]\n[a]\n",
        ":3: is not valid TOML: Cannot declare ('a',) twice; a table can be written only once",
    ),
    "an open string": (
        'a = 1\nb = "x',
        ":2: is not valid TOML: Unterminated string; its closing quotes are missing",
    ),
    "an open array": (
        "a = [\n1,\n2\n",
        ":3: is not valid TOML: Unclosed array; its closing bracket is missing",
    ),
    "two on a line": (
        "a = 1 b = 2",
        ":1: is not valid TOML: Expected newline or end of document after a statement; each option needs a line of its own",
    ),
    "too deep": (f"a = {'[' * 4000}", ":1: is nested too deeply"),
    "too many digits": (
        f"a = {'1' * 5000}",
        ":1: is not valid TOML: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits",
    ),
}


@pytest.mark.parametrize(("text", "expected"), SYNTAX_CASES.values(), ids=SYNTAX_CASES.keys())
def test_syntax(text: str, expected: str) -> None:
    """Text that is no TOML is told with its line and, for common slips, what to do."""
    assert mistakes_in(text) == [f"t.toml{expected}"]


def test_an_empty_file_is_a_mistake() -> None:
    """A file that is cut off before its first model never becomes a router that serves nothing."""
    assert mistakes_in("") == ["t.toml:1: models: is missing: write at least one [models.NAME] table"]


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a directory are named without a line."""
    for path, reason in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert [str(mistake) for mistake in raised.value.mistakes] == [f"{path}: cannot be read: {reason}"]


def test_file_that_is_not_utf_8(tmp_path: Path) -> None:
    """The line of the first byte that is no UTF-8 is told."""
    path = tmp_path / "turnout.toml"
    path.write_bytes(b"[server]\n# caf\xe9\n")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value) == f"{path}:2: is not UTF-8 text; save it as UTF-8"


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    """What Windows editors add does not matter, and lines stay right."""
    path = tmp_path / "turnout.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MODEL.replace("\n", "\r\n").encode())
    assert load(path) == decode(MODEL)
    path.write_bytes(b"\xef\xbb\xbf[server]\r\n\r\nprot = 1\r\n" + MODEL.encode())
    with pytest.raises(ConfigError, match=r":3: server\.prot"):
        load(path)


def test_references_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets, templates and logs are looked up beside the file, wherever the router was started."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "token").write_text("s3cret\n")
    (tmp_path / "etc" / "chat.jinja").write_text("{{ messages }}")
    path = tmp_path / "etc" / "turnout.toml"
    replica = MODEL.replace('"vllm" }', '"triton", chat_template = "file:chat.jinja", api_key = "env:SET" }')
    path.write_text('[server]\naccess_log = "access.log"\n[admin]\ntoken = "file:token"\n' + replica)
    monkeypatch.chdir(tmp_path)
    config = load("etc/turnout.toml", environ={"SET": "other"})
    (only,) = config.models["m"].versions["v1"].replicas
    assert config.admin.token is not None and config.admin.token.reveal() == "s3cret"
    assert only.api_key is not None and only.api_key.reveal() == "other"
    assert only.chat_template == "{{ messages }}"
    assert config.server.access_log == str(tmp_path / "etc" / "access.log")


def test_lines_are_kept_for_later() -> None:
    """A configuration knows its file and lines, so that whoever refuses a part of it can say where it is."""
    config = decode(MODEL, "t.toml", environ={})
    assert str(config.source.mistake(("models", "m", "policy"), "no")) == "t.toml:2: models.m.policy: no"
    assert config.source.wrote(("models", "m", "stable"))
    assert not config.source.wrote(("server", "port"))
