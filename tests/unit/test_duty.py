"""Duty times: what people write, and when somebody is ready."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.assignment.duty import Window, format_times, parse_times, ready_at

JAKARTA = "Asia/Jakarta"
BERLIN = "Europe/Berlin"  # Indonesia has no summer time; whoever has it must not be surprised
OFFICE = parse_times("mon-fri 08:00-17:00; sat 08:00-12:00")
NIGHT = parse_times("daily 22:00-06:00")


def at(text: str, zone: str = JAKARTA) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def ready(
    times: Sequence[Window],
    moment: datetime,
    *,
    off: datetime | None = None,
    rest: datetime | None = None,
    zone: str = JAKARTA,
) -> tuple[bool, datetime | None]:
    return ready_at(duty_times=times, off_until=off, rest_until=rest, moment=moment, timezone=zone)


# --- as people write it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("mon-fri 08:00-17:00; sat 08:00-12:00", "mon-fri 08:00-17:00; sat 08:00-12:00"),
        ("sen-jum 08.00-17.00", "mon-fri 08:00-17:00"),
        ("sen s/d jum 8 s/d 17", "mon-fri 08:00-17:00"),
        ("Senin sampai Kamis, Sabtu dan Minggu 9:30-10", "mon-thu,sat,sun 09:30-10:00"),
        ("Jum\u2019at 08:00\u201317:00", "fri 08:00-17:00"),
        ("setiap hari 22:00-06:00", "daily 22:00-06:00"),
        ("08:00-17:00", "daily 08:00-17:00"),
        ("fri-mon 00:00-24:00", "mon,fri-sun 00:00-24:00"),
        ("sun 00:00-00:00", "sun 00:00-24:00"),
        ("tue 18:00-00:00;", "tue 18:00-24:00"),
        ("", ""),
        (" Selalu ", ""),
    ],
)
def test_duty_times_are_read_as_people_write_them(text: str, means: str) -> None:
    assert format_times(parse_times(text)) == means


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mon", "“mon” has no hours"),
        ("foo 08:00-17:00", "“foo” is not a day"),
        ("mon-tue-wed 08:00-17:00", "“mon-tue-wed” is not a day"),
        ("mon,, tue 08:00-17:00", "“” is not a day"),
        ("mon 25:00-26:00", "25:00 is not a time of day"),
        ("mon 08:60-09:00", "08:60 is not a time of day"),
        ("mon 24:00-06:00", "24:00 is not a time of day"),
        ("mon 08:00-24:01", "24:01 is not a time of day"),
        ("mon 08:00-08:00", "starts and ends at the same time"),
        ("mon 08:00-12:00, tue 08:00-12:00", "is not a day"),
        ("; ".join(["mon 08:00-09:00"] * 29), "more than 28 windows"),
        ("mon \x00 08:00-09:00", "is not a day"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        parse_times(text)
    assert str(refused.value).endswith(".")


def test_volunteers_are_told_in_their_language() -> None:
    with pytest.raises(ValueError, match="bukan nama hari"):
        parse_times("foo 08:00-17:00", language="id")
    assert format_times(OFFICE, language="id") == "sen-jum 08:00-17:00; sab 08:00-12:00"


CLOCK = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start, end = draw(st.lists(CLOCK, min_size=2, max_size=2, unique=True))
    days = sorted(draw(st.sets(st.integers(0, 6), min_size=1)))
    return {"days": days, "from": start, "to": "24:00" if end == "00:00" else end}


TIMES = st.lists(windows(), max_size=4)


@given(TIMES)
def test_what_is_written_is_read_again(times: list[Window]) -> None:
    assert parse_times(format_times(times)) == times
    assert parse_times(format_times(times, language="id")) == times


@given(st.text(max_size=60))
def test_no_text_is_a_crash(text: str) -> None:
    try:
        assert parse_times(format_times(parse_times(text))) == parse_times(text)
    except ValueError as error:
        assert str(error).endswith(".")


# --- what it means at a moment --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "moment", "expected", "changes_at"),
    [
        ([], "2026-08-03T03:00", True, None),
        (OFFICE, "2026-08-03T07:59", False, "2026-08-03T08:00"),  # a Monday
        (OFFICE, "2026-08-03T08:00", True, "2026-08-03T17:00"),
        (OFFICE, "2026-08-03T17:00", False, "2026-08-04T08:00"),
        (OFFICE, "2026-08-08T12:00", False, "2026-08-10T08:00"),  # Saturday noon: until Monday
        (NIGHT, "2026-08-03T05:59", True, "2026-08-03T06:00"),
        (NIGHT, "2026-08-03T22:00", True, "2026-08-04T06:00"),
        (parse_times("sun 20:00-04:00"), "2026-08-03T03:00", True, "2026-08-03T04:00"),
        (parse_times("mon 08:00-12:00; mon 12:00-17:00"), "2026-08-03T09:00", True,
         "2026-08-03T17:00"),
        (parse_times("daily 00:00-24:00"), "2026-08-03T09:00", True, None),
        (parse_times("daily 12:00-00:00; daily 00:00-12:00"), "2026-08-03T09:00", True, None),
    ],
)  # fmt: skip
def test_ready_within_duty_times(
    times: list[Window], moment: str, expected: bool, changes_at: str | None
) -> None:
    assert ready(times, at(moment)) == (expected, at(changes_at) if changes_at else None)


def test_leave_and_rest_hold_until_both_are_over() -> None:
    monday = at("2026-08-03T09:00")
    later, evening = at("2026-08-03T11:00"), at("2026-08-03T18:00")
    assert ready([], monday, off=later) == (False, later)
    assert ready([], monday, off=later, rest=evening) == (False, evening)
    assert ready(OFFICE, monday, off=later) == (False, later)
    # When rest ends, duty has ended, too.
    assert ready(OFFICE, monday, off=later, rest=evening) == (False, at("2026-08-04T08:00"))
    assert ready(OFFICE, monday, off=monday) == (True, at("2026-08-03T17:00"))


def test_the_change_is_told_in_utc() -> None:
    _, changes_at = ready(OFFICE, at("2026-08-03T09:00"))
    assert changes_at is not None
    assert changes_at.utcoffset() == timedelta(0)


def test_a_night_of_summer_time_is_an_hour_shorter_or_longer() -> None:
    for evening, hours in (("2026-03-28T22:00", 7), ("2026-10-24T22:00", 9)):
        start = at(evening, BERLIN).astimezone(UTC)
        assert ready(NIGHT, start, zone=BERLIN) == (True, start + timedelta(hours=hours))


def test_a_window_in_the_hour_that_is_left_out_comes_next_week() -> None:
    times = parse_times("sun 02:30-03:15")
    saturday = at("2026-03-28T12:00", BERLIN)
    assert ready(times, saturday, zone=BERLIN) == (False, at("2026-04-05T02:30", BERLIN))


def test_a_gap_in_the_hour_that_is_left_out_comes_next_week() -> None:
    times = parse_times("mon-sat 00:00-24:00; sun 00:00-02:00; sun 03:00-24:00")
    monday = at("2026-03-23T12:00", BERLIN)
    assert ready(times, monday, zone=BERLIN) == (True, at("2026-04-05T02:00", BERLIN))


MOMENTS = st.datetimes(
    datetime(2024, 1, 1),  # noqa: DTZ001
    datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
HOLDS = st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=3))
ZONES = st.sampled_from([JAKARTA, "Asia/Jayapura", BERLIN, "America/Santiago", "Asia/Beirut"])


@given(TIMES, HOLDS, HOLDS, MOMENTS, ZONES)
@example(NIGHT, None, None, datetime(2026, 3, 28, 12, tzinfo=UTC), BERLIN)
@example(NIGHT, None, None, datetime(2026, 10, 24, 12, tzinfo=UTC), BERLIN)
def test_nothing_changes_before_the_next_change_and_then_it_does(
    times: list[Window],
    off: timedelta | None,
    rest: timedelta | None,
    moment: datetime,
    zone: str,
) -> None:
    """Minute by minute, for a day; and exactly at the change."""
    until = [None if hold is None else moment + hold for hold in (off, rest)]

    def look(then: datetime) -> tuple[bool, datetime | None]:
        return ready(times, then, off=until[0], rest=until[1], zone=zone)

    now, changes_at = look(moment)
    if changes_at is None:
        assert all(look(moment + timedelta(minutes=step))[0] == now for step in range(0, 1440, 7))
        return
    assert changes_at > moment
    step = moment
    while step < min(changes_at, moment + timedelta(days=1)):
        assert look(step) == (now, changes_at)
        step += timedelta(minutes=1)
    assert look(changes_at - timedelta(microseconds=1))[0] == now
    assert look(changes_at)[0] != now


@given(TIMES, MOMENTS, st.sampled_from([JAKARTA, "Asia/Makassar", "Asia/Jayapura"]))
def test_ready_is_what_the_clock_on_the_wall_says(
    times: list[Window], moment: datetime, zone: str
) -> None:
    """Where the clock never leaps, a much simpler rule says the same."""
    local = moment.astimezone(ZoneInfo(zone))
    clock, day = local.strftime("%H:%M"), local.weekday()

    def covers(entry: Window) -> bool:
        start, end, days = entry["from"], entry["to"], entry["days"]
        if start < end:
            return day in days and start <= clock < end
        return (day in days and clock >= start) or ((day - 1) % 7 in days and clock < end)

    assert ready(times, moment, zone=zone)[0] == (not times or any(map(covers, times)))
