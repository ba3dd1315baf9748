"""What counts as heard was handled, whatever came in whatever order."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.hearing import ALL, MOST_LOOKS, Hearing, nothing

PARTITIONS = 3
# What happens, one a second: a record comes to a partition, one is handled, or Kafka is looked at.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), st.integers(0, PARTITIONS - 1)),
        st.tuples(st.just("handled"), st.integers(0, PARTITIONS - 1)),
        st.tuples(st.just("look"), st.just(0)),
    ),
    max_size=120,
)


@given(STEPS)
def test_all_that_came_before_the_moment_that_is_heard_is_handled(
    steps: list[tuple[str, int]],
) -> None:
    hearing = Hearing()
    came: list[list[int]] = [[] for _ in range(PARTITIONS)]
    handled = [0] * PARTITIONS
    before = -1.0
    for moment, (step, partition) in enumerate(steps):
        if step == "comes":
            came[partition].append(moment)
        elif step == "handled":
            handled[partition] = min(handled[partition] + 1, len(came[partition]))
        else:
            ends = {number: len(records) for number, records in enumerate(came)}
            hearing.look(moment, ends, dict(enumerate(handled)))
        if hearing.until is None:
            continue
        assert hearing.until >= before, "it never goes back"
        before = hearing.until
        for number, records in enumerate(came):
            assert all(at > hearing.until for at in records[handled[number] :])


@given(STEPS)
def test_when_all_is_handled_all_is_heard(steps: list[tuple[str, int]]) -> None:
    hearing = Hearing()
    ends = dict.fromkeys(range(PARTITIONS), 0)
    for moment, (step, partition) in enumerate(steps):
        ends[partition] += step == "comes"
        if step == "look":
            hearing.look(moment, ends, dict.fromkeys(range(PARTITIONS), 0))
    hearing.look(1000, ends, ends)
    assert hearing.until == 1000


def test_a_backlog_of_a_day_is_remembered_in_little_room_and_still_heard() -> None:
    hearing = Hearing()
    for moment in range(100_000):
        hearing.look(moment, {0: moment}, {0: -1})
    assert hearing.until is None
    assert len(hearing._looks) <= MOST_LOOKS
    hearing.look(100_000, {0: 99_999}, {0: 50_000})
    assert hearing.until is not None
    assert 49_000 <= hearing.until <= 50_000


def test_who_needs_no_ears_has_heard_all_and_who_has_heard_nothing_is_years_behind() -> None:
    assert (ALL.behind(), ALL.deaf_for()) == (timedelta(0), timedelta(0))
    assert nothing().behind() > timedelta(days=365)
    assert nothing().deaf_for() < timedelta(days=1)
    assert nothing(since=-1e6).deaf_for() > timedelta(days=1)
