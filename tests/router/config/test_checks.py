"""What passes a check can be used without looking again."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.config import checks

URLS = st.one_of(
    st.text(max_size=30),
    st.builds(
        "{}://{}{}".format, st.sampled_from(["http", "redis", ""]), st.text(max_size=12), st.text(max_size=5)
    ),
    st.text("htps:/[]@.0189a?#%\\ \t", max_size=20).map(lambda text: f"http://{text}"),
)


@settings(deadline=None)
@given(URLS)
@example("http://[::1]:8000")
@example("http://[::1")
@example("http://a:0")
@example("http://a:99999")
@example("http://a\r\n.b")
@example("http://ａ")
def test_a_replica_url_that_passes_is_an_origin(url: str) -> None:
    """Whatever the text, a check answers; what passes has a host, a usable port, and nothing else."""
    if checks.replica_url(url) is None:
        parts = urlsplit(url)
        assert parts.scheme in ("http", "https")
        assert parts.hostname
        assert parts.port is None or 0 < parts.port <= 65535
        assert parts.path in ("", "/")
        assert not (parts.query or parts.fragment or parts.username or parts.password)
        assert url.isascii() and url.isprintable() and " " not in url


@settings(deadline=None)
@given(URLS)
def test_a_complaint_about_redis_repeats_nothing(url: str) -> None:
    """The URL may hold a password, so the complaint is the same for every wrong one."""
    assert checks.redis_url(url) in (None, checks.redis_url("wrong"))


@pytest.mark.parametrize("url", ["http://10.0.0.1:8000", "https://gpu.local", "http://[::1]:8000/"])
def test_replica_urls(url: str) -> None:
    """Addresses of both families, names, TLS."""
    assert checks.replica_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:6379",
        "redis://user:pass@h/",
        "redis://h/15",
        "redis://h?db=3&password=p",
        "rediss://h/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=none",
    ],
)
def test_redis_urls(url: str) -> None:
    assert checks.redis_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/cache",
        "redis://h/-1",
        "redis://h/0#1",
        "redis://h?db=abc",
        "redis://h/0?socket_timeout=abc",
        "redis://h/0?ssl_ca_certs=/etc/ca.pem",
        "rediss://h/0?unknown=1",
        "rediss://h/0?ssl_cert_reqs=maybe",
    ],
)
def test_redis_urls_that_would_mean_something_else(url: str) -> None:
    """Another database than was written, or an option that the client does not know."""
    assert checks.redis_url(url) is not None


@pytest.mark.parametrize("name", ["llama-8b", "meta-llama/Llama-3.1-8B", "v1", "2024_05"])
def test_names(name: str) -> None:
    """Names as hubs and teams write them pass."""
    assert checks.name(name) is None


@pytest.mark.parametrize("name", ["", "a b", "a@b", "a:b", "-a", "ä", "a\n", "a{b}", "/a"])
def test_names_that_would_break_something(name: str) -> None:
    """A name must not end a header, pin a version, look like an option or leave ASCII."""
    assert checks.name(name) is not None


@pytest.mark.parametrize("label", ["", "a b", "a\n", "x" * 129])
def test_labels_that_would_break_something(label: str) -> None:
    """A label stays on its line and stays short."""
    assert checks.label(label) is not None
