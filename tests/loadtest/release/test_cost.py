from loadtest.release.cost import cost_us


def test_a_request_costs_something_at_every_share() -> None:
    """How much is reported, never asserted."""
    cost = cost_us()
    assert set(cost) == {1.0, 5.0, 25.0, 50.0} and all(each > 0 for each in cost.values())
