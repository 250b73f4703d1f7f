from loadtest.engine.dialect import Reply, Request, Response
from loadtest.engine.http1 import Router, chunk, head


async def first(_: Request) -> Reply:
    return Response()


async def second(_: Request) -> Reply:
    return Response()


def test_head_bytes() -> None:
    """Status line, headers in order, an empty line; closing is said."""
    assert head(200, (("a", "1"), ("b", "2")), keep_alive=True) == b"HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\n\r\n"
    assert head(599, (), keep_alive=False) == b"HTTP/1.1 599 Unknown\r\nconnection: close\r\n\r\n"


def test_chunks() -> None:
    """Length in hex around the data; no data is no chunk, since an empty one ends the body."""
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert chunk(b"") == b""


def test_finding_handlers() -> None:
    """Exact paths, segments by name, and the two ways to miss."""
    router = Router(
        {
            ("GET", "/a"): first,
            ("POST", "/m/{name}/v/{number}"): second,
            ("GET", "/m/{name}/v/{number}"): first,
        }
    )
    assert router.find("GET", "/a") == (first, {})
    assert router.find("POST", "/a") == 405
    assert router.find("GET", "/b") == 404
    assert router.find("POST", "/m/x/v/1") == (second, {"name": "x", "number": "1"})
    assert router.find("GET", "/m/x/v/1") == (first, {"name": "x", "number": "1"})
    assert router.find("PUT", "/m/x/v/1") == 405
    assert router.find("GET", "/m/x/v") == 404
