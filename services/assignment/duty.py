"""When volunteers are ready: weekly duty times, leave and rest, and when that changes next.

Duty times are stored as ``[{"days": [0, 4], "from": "08:00", "to": "17:00"}]``: Monday is 0, the
times are the district's, and a window whose end is not after its start goes on past midnight. No
window at all means always.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import matching, openings
from shared.database import Row, execute, now, sql

Window = dict[str, Any]
Stretch = tuple[datetime, datetime | None]

DAYS = {
    "en": ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    "id": ("sen", "sel", "rab", "kam", "jum", "sab", "min"),
}
DAILY = {"en": "daily", "id": "setiap hari"}
_LONG = (
    ("monday", "senin"),
    ("tuesday", "tues", "selasa"),
    ("wednesday", "rabu"),
    ("thursday", "thur", "thurs", "kamis"),
    ("friday", "jumat", "jum'at"),
    ("saturday", "sabtu"),
    ("sunday", "minggu", "ahad"),
)
_NUMBER = {
    name: number
    for number in range(7)
    for name in (DAYS["en"][number], DAYS["id"][number], *_LONG[number])
}
_EVERY_DAY = ("", "daily", "every day", "setiap hari", "tiap hari")
_ALWAYS = ("", "always", "selalu", "setiap saat")

# Four windows on each day; whoever writes more has pasted something else.
MOST_WINDOWS = 28

_SENTENCES = {
    "en": {
        "many": "There are more than {most} windows.",
        "hours": "“{part}” has no hours; write them as in mon-fri 08:00-17:00.",
        "hour": "{text} is not a time of day; write it as 08:00.",
        "same": "{start}-{end} starts and ends at the same time; the whole day is 00:00-24:00.",
        "day": "“{text}” is not a day; write mon, tue, wed, thu, fri, sat, sun or daily.",
    },
    "id": {
        "many": "Ada lebih dari {most} jadwal.",
        "hours": "“{part}” tidak punya jam; tulis seperti sen-jum 08:00-17:00.",
        "hour": "{text} bukan jam; tulis seperti 08:00.",
        "same": "{start}-{end} mulai dan selesai pada jam yang sama; sehari penuh: 00:00-24:00.",
        "day": "“{text}” bukan nama hari; tulis sen, sel, rab, kam, jum, sab, min, atau "
        "setiap hari.",
    },
}

_TIME = r"([0-9]{1,2})(?:[:.]([0-9]{2}))?"
# A spreadsheet makes a long dash of the short one, and people write words.
_TO = re.compile(r"\s*(?:\u2013|\u2014|\b(?:s/d|sampai|to)\b)\s*")
_WINDOW = re.compile(rf"(.*?)\s*\b{_TIME}\s*-\s*{_TIME}")
_ECHOED = 40  # characters of a mistake that are said back


# --- as people write it ---------------------------------------------------------------------------


def parse_times(text: str, *, language: str = "en") -> list[Window]:
    """Read ``mon-fri 08:00-17:00; sab 08.00-12.00``; nothing means always.

    Days are English or Indonesian, alone, as a range or as a list; without days it is every day.

    Raises:
        ValueError: with a sentence in ``language`` (``en`` or ``id``) about the first mistake.
    """
    plain = _TO.sub("-", " ".join(text.lower().replace("\u2019", "'").split()))
    if plain in _ALWAYS:
        return []
    parts = [part.strip() for part in plain.split(";") if part.strip()]
    if len(parts) > MOST_WINDOWS:
        raise _mistake(language, "many", most=MOST_WINDOWS)
    return [_window(part, language) for part in parts]


def window(days: Sequence[int], start: str, end: str, *, language: str = "en") -> Window:
    """One window of duty times, checked. The whole day is 00:00-24:00, or 00:00-00:00.

    Raises:
        ValueError: with a sentence in ``language`` about the mistake.
    """
    first, last = _clock(start, language), _clock(end, language)
    if first == "24:00":
        raise _mistake(language, "hour", text=first)
    if last == "00:00":
        last = "24:00"
    if first == last:
        raise _mistake(language, "same", start=first, end=last)
    return {"days": sorted(set(days)), "from": first, "to": last}


def format_times(times: Sequence[Window], *, language: str = "en") -> str:
    """Write duty times as :func:`parse_times` reads them; always is an empty text."""
    return "; ".join(
        f"{_day_names(entry['days'], language)} {entry['from']}-{entry['to']}" for entry in times
    )


def _window(part: str, language: str) -> Window:
    found = _WINDOW.fullmatch(part)
    if found is None:
        raise _mistake(language, "hours", part=part[:_ECHOED])
    days, from_hour, from_minute, to_hour, to_minute = found.groups()
    return window(
        _days(days.rstrip(" :,"), language),
        f"{from_hour}:{from_minute or '00'}",
        f"{to_hour}:{to_minute or '00'}",
        language=language,
    )


def _days(text: str, language: str) -> list[int]:
    if text in _EVERY_DAY:
        return list(range(7))
    days: list[int] = []
    for part in re.split(r"\s*[,/&+]\s*|\s+(?:and|dan)\s+", text):
        ends = [_day(name.strip(), language) for name in part.split("-")]
        if len(ends) > 2:
            raise _mistake(language, "day", text=part[:_ECHOED])
        # A range may go past Sunday: fri-mon.
        days += [(ends[0] + step) % 7 for step in range((ends[-1] - ends[0]) % 7 + 1)]
    return days


def _day(name: str, language: str) -> int:
    if name not in _NUMBER:
        raise _mistake(language, "day", text=name[:_ECHOED])
    return _NUMBER[name]


def _clock(text: str, language: str) -> str:
    found = re.fullmatch(_TIME, text.strip())
    if found is None:
        raise _mistake(language, "hour", text=text[:_ECHOED])
    hour, minute = int(found[1]), int(found[2] or 0)
    if minute > 59 or hour * 60 + minute > 24 * 60:
        raise _mistake(language, "hour", text=text[:_ECHOED])
    return f"{hour:02}:{minute:02}"


def _day_names(days: Sequence[int], language: str) -> str:
    if len(days) == 7:
        return DAILY[language]
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    names = DAYS[language]
    return ",".join(
        f"{names[run[0]]}-{names[run[-1]]}" if len(run) > 2 else ",".join(names[d] for d in run)
        for run in runs
    )


def _mistake(language: str, what: str, **values: Any) -> ValueError:
    return ValueError(_SENTENCES[language][what].format(**values))


# --- what it means at a moment --------------------------------------------------------------------


def ready_at(
    *,
    duty_times: Sequence[Window],
    off_until: datetime | None,
    rest_until: datetime | None,
    moment: datetime,
    timezone: str,
) -> tuple[bool, datetime | None]:
    """Whether times, leave and rest allow it at ``moment``, and when that changes next.

    The change is in UTC, later than ``moment``, and None if it never comes.
    """
    free_from = max(each for each in (moment, off_until, rest_until) if each is not None)
    on_duty_from, on_duty_until = _stretch_after(free_from, duty_times, ZoneInfo(timezone))
    begins = max(free_from, on_duty_from)
    if begins > moment:
        return False, begins.astimezone(UTC)
    return True, on_duty_until


# Two weeks and a day: a summer-time change can swallow one occurrence of a window or of a gap.
_HORIZON_DAYS = 15


def _stretch_after(moment: datetime, times: Sequence[Window], zone: ZoneInfo) -> Stretch:
    """The first stretch of duty that ends after ``moment``; it may have begun before."""
    if not times:
        return moment, None
    for start, end in _stretches(moment.astimezone(zone).date(), times, zone):
        if end is None or end > moment:
            return start, end
    raise AssertionError("a weekly window comes at least every second week")


def _stretches(day: date, times: Sequence[Window], zone: ZoneInfo) -> Iterator[Stretch]:
    """Stretches of duty in order from the day before ``day``, with those that touch joined."""
    current: tuple[datetime, datetime] | None = None
    for offset in range(-1, _HORIZON_DAYS):
        for start, end in _windows_of(day + timedelta(days=offset), times, zone):
            if current is None:
                current = start, end
            elif start <= current[1]:
                current = current[0], max(current[1], end)
            else:
                yield current
                current = start, end
    if current is not None:
        # Without a gap up to here there is none at all.
        unbroken = current[1] - current[0] > timedelta(days=_HORIZON_DAYS - 1)
        yield current[0], None if unbroken else current[1]


def _windows_of(
    day: date, times: Sequence[Window], zone: ZoneInfo
) -> list[tuple[datetime, datetime]]:
    """The windows that begin on a day, as moments in UTC, in order."""
    found = []
    for entry in times:
        if day.weekday() in entry["days"]:
            past_midnight = entry["to"] <= entry["from"]
            start = _moment(day, entry["from"], zone)
            end = _moment(day + timedelta(days=int(past_midnight)), entry["to"], zone)
            # Where the clock leaps forward, a window may have no moment that year.
            if start < end:
                found.append((start, end))
    return sorted(found)


def _moment(day: date, clock: str, zone: ZoneInfo) -> datetime:
    """The moment at which a clock on the wall shows this; the first one if it does so twice."""
    hour, minute = int(clock[:2]), int(clock[3:])
    if hour == 24:
        day, hour = day + timedelta(days=1), 0
    return datetime.combine(day, time(hour, minute), zone).astimezone(UTC)


# --- kept in the table ----------------------------------------------------------------------------

_COLUMNS = """
    id, district, duty_times, off_until, rest_until, reachable, available
"""
_DUE = sql(f"""
    SELECT {_COLUMNS} FROM volunteers
    WHERE ready_changes_at <= now() AND district = ANY(CAST(:districts AS text[]))
    ORDER BY id LIMIT CAST(:most AS int) FOR NO KEY UPDATE SKIP LOCKED
""")  # noqa: S608 - only our own text
_DUE_DISTRICTS = sql("""
    SELECT DISTINCT district FROM (
        SELECT district FROM volunteers
        WHERE ready_changes_at <= now() AND district = ANY(CAST(:districts AS text[]))
        ORDER BY ready_changes_at LIMIT CAST(:most AS int)) AS due
""")
_GIVEN = sql(f"""
    SELECT {_COLUMNS} FROM volunteers
    WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")  # noqa: S608 - only our own text
_KEEP = sql("""
    UPDATE volunteers v SET ready = kept.ready, ready_changes_at = kept.changes_at
    FROM unnest(CAST(:ids AS uuid[]), CAST(:ready AS bool[]), CAST(:changes_at AS timestamptz[]))
         AS kept (id, ready, changes_at)
    WHERE v.id = kept.id
    RETURNING v.id, v.available
""")


async def refresh(
    session: AsyncSession, *, timezones: Mapping[str, str], limit: int = 500
) -> list[str]:
    """Let those become ready, or no longer be so, whose time has come; at most ``limit``.

    ``timezones`` are those of the known districts, by code. Returns the districts in which somebody
    became available, which have then been announced to the sweep.
    """
    values = {"districts": list(timezones), "most": limit}
    due = await execute(session, _DUE_DISTRICTS, values)
    if not due:
        return []
    # A search that is under way ends first, and its case is then seen to wait.
    await matching.hold(session, [row.district for row in due])
    found = await execute(session, _DUE, values | {"districts": [row.district for row in due]})
    opened = await _keep(session, found, timezones=timezones)
    await openings.announce(session, opened)
    return opened


async def recompute(
    session: AsyncSession, ids: Sequence[UUID], *, timezones: Mapping[str, str]
) -> None:
    """Make ``ready`` true to duty times, leave and rest after they were changed."""
    await _keep(session, await execute(session, _GIVEN, {"ids": list(ids)}), timezones=timezones)


async def _keep(
    session: AsyncSession, found: Sequence[Row], *, timezones: Mapping[str, str]
) -> list[str]:
    """Store who is ready; returns the districts in which somebody became available by it."""
    if not found:
        return []
    moment = await now(session)
    states = [
        # Whoever wants no messages by any channel cannot be asked, whatever the time.
        (False, None)
        if not row.reachable
        else ready_at(
            duty_times=row.duty_times,
            off_until=row.off_until,
            rest_until=row.rest_until,
            moment=moment,
            timezone=timezones[row.district],
        )
        for row in found
    ]
    kept = await execute(
        session,
        _KEEP,
        {
            "ids": [row.id for row in found],
            "ready": [ready for ready, _ in states],
            "changes_at": [changes_at for _, changes_at in states],
        },
    )
    before = {row.id: row for row in found}
    return sorted(
        {before[row.id].district for row in kept if row.available and not before[row.id].available}
    )
