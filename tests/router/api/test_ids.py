"""Request ids."""

import pytest

from router.api.ids import RequestIds


def test_a_usable_id_is_kept() -> None:
    """Clients find their own id again."""
    assert RequestIds().of("req-42_A.b") == "req-42_A.b"


@pytest.mark.parametrize("offered", [None, "", " ", "a b", "a\r\nb", "é", "x" * 129, "\x00"])
def test_anything_else_is_replaced(offered: str | None) -> None:
    """Nothing that could break a header or a log line is repeated."""
    made = RequestIds().of(offered)
    assert made != offered
    assert made.isascii()
    assert made.isprintable()


def test_ids_differ_within_and_between_routers() -> None:
    """Two routers never mint the same id."""
    ids = [RequestIds() for _ in range(20)]
    made = [each.of(None) for each in ids for _ in range(50)]
    assert len(set(made)) == 1000
