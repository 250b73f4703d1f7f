from router.engines.unknown import difference, first, product, share, total


def test_what_depends_on_the_unknown_is_unknown() -> None:
    """One unknown part is enough, and no parts at all are no figure."""
    assert total([1.0, None, 2.0]) is total([]) is None
    assert product(None, 2.0) is product(2.0, None) is None
    assert difference(None, 1.0) is difference(1.0, None) is None
    assert share(None, 4.0) is share(1.0, None) is None


def test_zero_is_known() -> None:
    """Nothing counted is a figure like any other."""
    assert first(None, 0.0, 5.0) == 0.0
    assert (total([0.0]), product(0.0, 3.0), difference(2.0, 2.0), share(0.0, 4.0)) == (0.0, 0.0, 0.0, 0.0)


def test_what_cannot_be_is_unknown() -> None:
    """Less than nothing, or a share of nothing; a share of more than the whole is all of it."""
    assert difference(1.0, 2.0) is None
    assert share(1.0, 0.0) is None
    assert share(9.0, 4.0) == 1.0
