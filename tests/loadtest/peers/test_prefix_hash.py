from tests.support.peer_policies import chosen, fleet_of, peer

BEGINNING = "b" * 16
"""256 tokens."""


def test_prompts_that_begin_alike_share_a_home() -> None:
    """Whatever follows; other beginnings live elsewhere."""
    policy = peer("smg_prefix_hash")
    fleet = fleet_of(a=0, b=0, c=0, d=0)
    assert len({chosen(policy, f"{BEGINNING}{number}", fleet) for number in range(20)}) == 1
    assert len({chosen(policy, f"{number}{BEGINNING}", fleet) for number in range(20)}) == 4


def test_a_home_that_is_overloaded_leaves_it_to_the_least_loaded() -> None:
    """Its own example: of 100 on four the limit is 31.25, or with this one more 31.6."""
    policy = peer("smg_prefix_hash")
    home = chosen(policy, BEGINNING, fleet_of(a=0, b=0, c=0, d=0))
    others = [name for name in "abcd" if name != home]

    def loaded(own: int, *theirs: int) -> str:
        return chosen(policy, BEGINNING, fleet_of(**{home: own}, **dict(zip(others, theirs, strict=True))))

    assert loaded(30, 24, 20, 26) == home
    assert loaded(31, 24, 20, 25) == home
    assert loaded(35, 24, 20, 21) == others[1]


def test_a_prompt_without_a_block_goes_to_the_least_loaded() -> None:
    """It has no beginning to hash."""
    assert chosen(peer("smg_prefix_hash"), "", fleet_of(a=2, b=1)) == "b"
