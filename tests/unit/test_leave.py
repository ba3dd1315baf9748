"""Days off are taken only from a text that is nothing else, and with a known end."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification.incoming.reading import classify
from services.notification.incoming.reading.leave import DAYS_AT_MOST, Day, Leave, leave_in

TUESDAY = date(2026, 11, 24)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("libur 3 hari", "2026-11-24", "2026-11-26"),
        ("cuti sampai senin", "2026-11-24", "2026-11-30"),
        ("saya libur minggu ini", "2026-11-24", "2026-11-29"),
        ("off 2 hari pak", "2026-11-24", "2026-11-25"),
        ("cuti s/d 5 desember", "2026-11-24", "2026-12-05"),
        ("cuti sd 5/12", "2026-11-24", "2026-12-05"),
        ("cuti smp tgl 2", "2026-11-24", "2026-12-02"),
        ("libur besok", "2026-11-25", "2026-11-25"),
        ("besok saya libur", "2026-11-25", "2026-11-25"),
        ("lusa off", "2026-11-26", "2026-11-26"),
        ("libur hari ini", "2026-11-24", "2026-11-24"),
        ("maaf bu, saya sedang cuti sampai jumat, terima kasih", "2026-11-24", "2026-11-27"),
        ("izin libur seminggu", "2026-11-24", "2026-11-30"),
        ("libur dua minggu", "2026-11-24", "2026-12-07"),
        ("libur minggu depan", "2026-11-30", "2026-12-06"),
        ("libur hari minggu", "2026-11-29", "2026-11-29"),
        ("mulai besok libur 3 hari", "2026-11-25", "2026-11-27"),
        ("libur 3 hari mulai lusa", "2026-11-26", "2026-11-28"),
        ("libur senin sampai rabu", "2026-11-30", "2026-12-02"),
        ("libur 5-7 desember", "2026-12-05", "2026-12-07"),
        ("libur dari senin sampai rabu", "2026-11-30", "2026-12-02"),
        ("W259A LIBUR 3 HARI", "2026-11-24", "2026-11-26"),
        ("cuti sampai selasa", "2026-11-24", "2026-12-01"),
        ("cuti s/d 3 januari", "2026-11-24", "2027-01-03"),
    ],
)
def test_days_off_that_people_announce_are_understood(text: str, first: str, last: str) -> None:
    reading = classify(text, codes=["W259A"])
    assert reading.meaning == "off_duty"
    assert reading.leave is not None
    assert reading.leave.since(TUESDAY) == date.fromisoformat(first)
    assert reading.leave.until(TUESDAY) == date.fromisoformat(last)


@pytest.mark.parametrize(
    "text",
    [
        "libur", "cuti", "libur dulu", "libur sampai sembuh", "cuti sampai lebaran",
        "sudah libur 3 hari",
        "libur 3 hari?", "kapan libur 3 hari", "tidak libur 3 hari", "anak saya libur 3 hari",
        "istri cuti sampai senin", "sakit 2 hari", "libur 3 hari lagi", "libur 3 hari yang lalu",
        "libur minggu lalu", "libur 3 hari tapi bisa kalau mendesak", "libur mulai besok",
        "libur senin depan", "libur 0 hari", "libur sekolah 2 minggu", "libur 3 hari siap",
        "libur sampai minggu depan", "kalau libur 3 hari", "libur 3",
    ],
)  # fmt: skip
def test_what_may_be_something_else_is_no_leave(text: str) -> None:
    assert classify(text).meaning not in ("off_duty", "accept", "arrived", "done")


@pytest.mark.parametrize(
    "leave",
    [
        Leave(days=DAYS_AT_MOST + 1),
        Leave(last=Day(day=31, month=2)),
        Leave(last=Day(day=1, month=1, year=2020)),
        Leave(last=Day(day=23, month=11)),  # yesterday: in a year
        Leave(first=Day(day=40)),
        Leave(first=Day(in_days=5), last=Day(in_days=1)),
        Leave(first=Day()),
    ],
)
def test_an_end_that_does_not_exist_or_is_far_away_is_unknown(leave: Leave) -> None:
    assert leave.until(TUESDAY) is None


DATES = st.dates(date(2020, 1, 1), date(2090, 12, 31))


@given(today=DATES, weekday=st.integers(0, 6))
def test_until_a_weekday_is_within_the_week_to_come(today: date, weekday: int) -> None:
    last = Leave(last=Day(weekday=weekday)).until(today)
    assert last is not None
    assert today < last <= today + timedelta(days=7)
    assert last.weekday() == weekday


@given(today=DATES, days=st.integers(1, DAYS_AT_MOST))
def test_so_many_days_count_today(today: date, days: int) -> None:
    assert Leave(days=days).until(today) == today + timedelta(days=days - 1)


ANY_DAY = st.builds(
    Day,
    in_days=st.none() | st.integers(0, 99),
    weekday=st.none() | st.integers(0, 6),
    day=st.none() | st.integers(-1, 99),
    month=st.none() | st.integers(-1, 99),
    year=st.none() | st.integers(-1, 99_999),
)


@given(
    today=DATES, first=ANY_DAY, days=st.none() | st.integers(-5, 99), last=st.none() | ANY_DAY,
    weeks=st.none() | st.integers(0, 9),
)  # fmt: skip
def test_a_leave_never_ends_before_it_begins_or_too_late(
    today: date, first: Day, days: int | None, last: Day | None, weeks: int | None
) -> None:
    leave = Leave(first, days, last, weeks)
    until, since = leave.until(today), leave.since(today)
    if until is not None:
        assert since is not None
        assert since <= until < today + timedelta(days=DAYS_AT_MOST)


WORDS = st.sampled_from(
    ["libur", "cuti", "off", "saya", "3", "31", "99", "hari", "minggu", "ini", "depan", "sampai",
     "s/d", "-", "mulai", "dari", "senin", "jumat", "besok", "tgl", "5", "5/12", "31/2", "des",
     "desember", "2027", "selama", "seminggu", "pak", "tidak", "sudah", "?", "hujan"]
)  # fmt: skip


@given(words=st.lists(WORDS, max_size=8), today=DATES)
def test_any_words_give_a_leave_with_no_error_and_never_one_with_a_denial(
    words: list[str], today: date
) -> None:
    leave = leave_in(words)
    if leave is not None:
        leave.until(today)
        assert not {"tidak", "sudah", "?", "hujan"} & set(words)


@pytest.mark.parametrize(
    "text",
    ["jadwal", "JADWAL", "minta jadwal pak", "jadwal saya", "W259A jadwal", "mohon jadwal jaga bu"],
)
def test_the_duty_page_can_be_asked_for(text: str) -> None:
    assert classify(text, codes=["W259A"]).meaning == "duty_page"


@pytest.mark.parametrize(
    "text", ["jadwal kapal", "jadwal saya penuh", "siap sesuai jadwal", "jadwal rapat jam 5"]
)
def test_other_times_are_no_request_for_the_duty_page(text: str) -> None:
    assert classify(text).meaning in ("ask", "decline")
