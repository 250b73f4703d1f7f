"""What several processes hear of one replica, as one."""

import msgspec

from router.fleet.kv_figures import COUNTS, KvFigures, merged

WELL = KvFigures(
    connected=True,
    known_blocks=40,
    events_per_s=3.0,
    last_event_age_s=1.0,
    lag_s=0.1,
    **dict.fromkeys(COUNTS, 5),
)
LATE = KvFigures(known_blocks=7, events_per_s=1.0, last_event_age_s=4.0, lag_s=None, events=2)


def test_one_is_what_it_is() -> None:
    """Nothing is added, nothing is lost."""
    assert merged([WELL], [WELL]) == WELL


def test_the_state_is_the_worst_and_counts_add_up() -> None:
    """One worker that is deaf or behind is not all right; those that are gone have counted too."""
    both = merged([WELL, LATE], [WELL, LATE, WELL])
    assert both is not None
    assert (both.listeners, both.connected, both.known_blocks) == (2, False, 7)
    assert (both.events_per_s, both.last_event_age_s, both.lag_s) == (3.0, 4.0, 0.1)
    assert (both.events, both.gaps) == (12, 10)


def test_nobody_hears_is_not_silence() -> None:
    """Counts of those that are gone alone are no state; who has heard nothing yet has no age."""
    assert merged([], [WELL]) is None
    fresh = merged([KvFigures(), KvFigures()], [])
    assert fresh == KvFigures(listeners=2)


def test_every_figure_is_a_state_or_a_count() -> None:
    """One that is added one day cannot be forgotten here."""
    states = {"listeners", "connected", "known_blocks", "events_per_s", "last_event_age_s", "lag_s"}
    assert set(KvFigures.__struct_fields__) == states | set(COUNTS)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(WELL), type=KvFigures) == WELL
