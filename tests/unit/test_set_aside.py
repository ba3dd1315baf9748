"""What may be set aside, and how long it then rests."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shared.database import is_away
from shared.set_aside import LONGEST_PAUSE, Aside, in_words, may_go_aside, pause_after

AWAY, UNLUCKY = ConnectionResetError("gone"), TimeoutError("too slow")
STUCK = st.dictionaries(
    st.uuids(), st.sampled_from([AWAY, UNLUCKY]), min_size=1, max_size=30
)  # case -> why its record cannot go on


@given(stuck=STUCK, in_a_row=st.integers(0, 40), most=st.integers(1, 20))
def test_where_no_other_goes_on_nothing_is_set_aside_for_want_of_the_database(
    stuck: dict[UUID, Exception], in_a_row: int, most: int
) -> None:
    may = may_go_aside(stuck, others_went_on=False, in_a_row=in_a_row, most_in_a_row=most)
    assert not any(is_away(stuck[case]) for case in may)
    assert len(may) + in_a_row <= max(most, in_a_row)


@given(stuck=STUCK, in_a_row=st.integers(0, 40), most=st.integers(1, 20))
def test_where_others_go_on_whatever_cannot_is_set_aside(
    stuck: dict[UUID, Exception], in_a_row: int, most: int
) -> None:
    may = may_go_aside(stuck, others_went_on=True, in_a_row=in_a_row, most_in_a_row=most)
    assert may == list(stuck)


@given(st.integers(0, 10_000))
def test_each_pause_is_at_least_as_long_as_the_one_before_and_none_is_endless(tries: int) -> None:
    assert timedelta(0) < pause_after(tries) <= pause_after(tries + 1) <= LONGEST_PAUSE


def test_what_waits_is_one_sentence_for_each_consumer() -> None:
    since = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

    def waits(consumer: str, case: int, minutes: int) -> Aside:
        return Aside(
            consumer=consumer, case_id=UUID(int=case), records=2, attempts=3,
            error=f"TimeoutError {case}", since=since + timedelta(minutes=minutes),
        )  # fmt: skip

    assert in_words([]) == []
    assert in_words([waits("b", 1, 0), waits("a", 2, 9), waits("a", 3, 5)]) == [
        "2 cases of a wait behind records that cannot go on: TimeoutError 3 "
        "(4 set aside, the oldest since 2026-01-02 03:09 UTC)",
        "1 case of b waits behind a record that cannot go on: TimeoutError 1 "
        "(2 set aside, the oldest since 2026-01-02 03:04 UTC)",
    ]
