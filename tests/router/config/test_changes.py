"""What needs a restart, and that nothing else does."""

import dataclasses
from typing import Any, get_type_hints

import pytest

from router.config.changes import RESTART, restart_mistakes, restart_paths
from router.config.decode import decode
from router.config.model import Config
from router.config.option import options, without_none
from tests.support.configs import MODEL

REDIS = '[redis]\nurl = "redis://user:passw0rd@127.0.0.1:6379/0"\n'


def test_every_row_is_an_option() -> None:
    """A section of the file, and an option in it."""
    for section, name in RESTART:
        assert name in options(without_none(get_type_hints(Config)[section])), (section, name)


@pytest.mark.parametrize("path", RESTART)
def test_each_row_is_found_when_it_changes(path: tuple[str, str]) -> None:
    """With its reason, at its line."""
    section, name = path
    before = decode(REDIS + MODEL)
    part: Any = getattr(before, section)
    after = dataclasses.replace(before, **{section: dataclasses.replace(part, **{name: object()})})
    assert [(where, why) for where, _, why in restart_paths(before, after)] == [(path, RESTART[path])]


def test_the_mistake_names_the_line() -> None:
    """As every mistake does; a secret is not shown."""
    after = decode("[server]\nworkers = 2\n" + REDIS + MODEL, "t.toml")
    assert [str(each) for each in restart_mistakes(decode(MODEL), after)] == [
        "t.toml:2: server.workers: 1 -> 2; processes are made at the start: restart",
        (
            "t.toml:4: redis.url: absent -> redis://********@127.0.0.1:6379/0; "
            "who shares this Redis agreed on it at the start: restart"
        ),
        "t.toml:3: redis.on_failure: absent -> local_share; who shares this Redis agreed on it at the start: restart",
        "t.toml:3: redis.timeout_ms: absent -> 25.0; who shares this Redis agreed on it at the start: restart",
    ]


def test_how_long_reservations_last_is_fixed_where_redis_keeps_them() -> None:
    """Without limits, or without Redis, the same option may change."""
    limit = '[[limits]]\nname = "l"\nrequests_per_minute = 5\n'
    longer = "[timeouts]\ntotal_s = 5\n"
    for text, found in ((REDIS + MODEL + limit, 1), (MODEL + limit, 0), (REDIS + MODEL, 0)):
        assert len(restart_mistakes(decode(text), decode(longer + text))) == found


def test_everything_else_may_change() -> None:
    """Models, keys, limits, timeouts, the budgets of a request."""
    after = """
[server]
max_body_bytes = 2000
drain_timeout_s = 5
[timeouts]
total_s = 5
[queue]
max_requests = 0
[models.other]
stable = "v1"
[models.other.versions.v1]
served_name = "x"
replicas = [ { url = "http://10.0.0.9:8000", engine = "tgi" } ]
[[keys]]
id = "k"
tenant = "t"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
"""
    assert restart_mistakes(decode(MODEL), decode(after)) == ()
