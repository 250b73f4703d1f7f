from math import inf, nan
from random import Random

import pytest

from policies.resilience.hysteresis import TRANSITIONS, Event, Hysteresis, State


def watch(probes: str, *, up: bool, every_s: float = 1.0, start: float = 1_000.0, **options: float) -> str:
    """The verdict after each probe: `+` good or up, `-` bad or down, `h` held."""
    health = Hysteresis(Hysteresis.Options(**options), up=up)  # type: ignore[arg-type]
    marks = {State.UP: "+", State.DOWN: "-", State.HELD: "h"}
    return "".join(
        marks[health.observe(probe == "+", start + number * every_s)] for number, probe in enumerate(probes)
    )


def test_up_after_good_probes_in_a_row() -> None:
    """Two in a row bring it up; a bad one between them starts the count again."""
    assert watch("+-+-++", up=False) == "-----+"
    assert watch("++++", up=False, up_after=4) == "---+"


def test_down_after_bad_probes_in_a_row() -> None:
    """Three in a row take it out; a good one between them starts the count again."""
    assert watch("--+--+---", up=True) == "++++++++-"
    assert watch("-", up=True, down_after=1) == "-"


def test_probes_that_alternate_change_nothing() -> None:
    """A probe that flips every second never makes a streak, whichever way the replica was."""
    assert watch("+-" * 100, up=True) == "+" * 200
    assert watch("+-" * 100, up=False) == "-" * 200


def test_the_fifth_flip_in_a_minute_holds_it_down() -> None:
    """Four changes pass; the fifth is refused for 30 s though every probe is good from then on."""
    flapping = "---++" * 2 + "---"
    assert watch(flapping + "+" * 32, up=True) == "++--+" * 2 + "++h" + "h" * 29 + "+++"


def test_a_rise_can_be_the_flip_too_many() -> None:
    """The replica that comes back once too often is held down instead."""
    assert watch("++---" * 2 + "++", up=False) == "-+++-" * 2 + "-h"


def test_flips_are_counted_within_the_window_only() -> None:
    """The same changes, slower than five a minute, are all believed."""
    slowly = watch("---++" * 20, up=True, every_s=7.0)
    assert slowly == "++--+" * 20


def test_after_the_hold_a_streak_is_needed_again() -> None:
    """Bad probes during the hold leave it down at its end, and good ones after it bring it up."""
    after = watch("---++" * 2 + "---" + "-" * 30 + "-++", up=True)[13:]
    assert after == "h" * 29 + "-" + "--+"


def test_flapping_on_and_on_is_mostly_down() -> None:
    """A replica that flips as fast as streaks allow, for an hour, is up for a small part of it only."""
    verdicts = watch("---++" * 720, up=True)
    assert verdicts.count("+") < len(verdicts) / 5
    assert verdicts.count("h") > len(verdicts) / 2


def test_every_change_is_in_the_table() -> None:
    """Over 20,000 random probes only transitions of the table occur, and all of them do."""
    rng = Random(4)
    health = Hysteresis(Hysteresis.Options(), up=True)
    allowed = {(before, after) for (before, _), after in TRANSITIONS.items()}
    allowed |= {(State.HELD, State.UP)}  # released and risen with one probe
    seen = set()
    good, now = True, 0.0
    for _ in range(20_000):
        good = good if rng.random() < 0.75 else not good
        now += rng.choice([0.5, 1.0, 20.0])
        before = health.state
        after = health.observe(good, now)
        assert health.up is (after is State.UP)
        if before is not after:
            seen.add((before, after))
    assert seen == allowed


def test_the_table_names_every_state_and_event() -> None:
    """Nothing is declared that cannot happen, or that nothing leads to."""
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_streaks_are_counted() -> None:
    """The prober lowers a replica's weight from the first bad probe on, before it is down."""
    health = Hysteresis(Hysteresis.Options())
    for good, streaks in ((True, (1, 0)), (True, (2, 0)), (False, (0, 1)), (False, (0, 2)), (True, (1, 0))):
        health.observe(good, 1.0)
        assert (health.good, health.bad) == streaks


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("up_after", 0),
        ("down_after", 0),
        ("max_flips", 0),
        ("flip_window_s", 0.0),
        ("hold_s", -1.0),
        ("hold_s", nan),
        ("hold_s", inf),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    """The message names the option."""
    with pytest.raises(ValueError, match=option):
        Hysteresis.Options(**{option: value})  # type: ignore[arg-type]
