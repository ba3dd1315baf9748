"""When a volunteer who writes "libur 3 hari" or "cuti sampai senin" is back: a small grammar.

A leave is found only if every word of the text is part of it and its end is known. What may as
well be a report of the past ("sakit 2 hari", "sudah libur 3 hari") is no leave.
"""

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

# A longer leave is a mistake in a date, or a matter for the coordinator.
DAYS_AT_MOST = 100


@dataclass(frozen=True)
class Day:
    """A day as people name it: so many days from today, a weekday (0 is Monday) or a date."""

    in_days: int | None = None
    weekday: int | None = None
    day: int | None = None
    month: int | None = None
    year: int | None = None

    def on_or_after(self, today: date) -> date | None:
        """The next such day, counted from ``today``; None if there is none such."""
        if self.in_days is not None:
            return today + timedelta(days=self.in_days)
        if self.weekday is not None:
            return today + timedelta(days=(self.weekday - today.weekday()) % 7)
        if self.day is None:
            return None
        return _next_date(self.day, self.month, self.year, today)


TODAY = Day(in_days=0)


@dataclass(frozen=True)
class Leave:
    """Days off: from ``first`` on for so many ``days``, or to ``last``, or to the end of a week
    (``weeks_ahead``: 0 is this week, which ends on Sunday)."""

    first: Day = TODAY
    days: int | None = None
    last: Day | None = None
    weeks_ahead: int | None = None

    def since(self, today: date) -> date | None:
        """The first day off."""
        if self.weeks_ahead:
            return today + timedelta(days=7 * self.weeks_ahead - today.weekday())
        return self.first.on_or_after(today)

    def until(self, today: date) -> date | None:
        """The last day off; None if there is no such day, or it is too far away."""
        first = self.since(today)
        if first is None:
            return None
        last = self._last(first, today)
        if last is None or not first <= last < today + timedelta(days=DAYS_AT_MOST):
            return None
        return last

    def _last(self, first: date, today: date) -> date | None:
        if self.days is not None:
            return first + timedelta(days=self.days - 1)
        if self.weeks_ahead is not None:
            return today + timedelta(days=7 * self.weeks_ahead + 6 - today.weekday())
        if self.last is None:
            return first
        if self.last.weekday is not None:
            # Who is off "until Monday" on a Monday means the next one.
            return self.last.on_or_after(first + timedelta(days=1))
        return self.last.on_or_after(first if self.last.in_days is None else today)


def _next_date(day: int, month: int | None, year: int | None, today: date) -> date | None:
    """The next such date, ``today`` included; without a month, of this month or the next."""
    if year is not None:
        return _real(year, month or today.month, day)
    if month is not None:
        options = [_real(today.year + ahead, month, day) for ahead in (0, 1)]
    else:
        following = today.replace(day=1) + timedelta(days=32)
        options = [_real(at.year, at.month, day) for at in (today, following)]
    return next((found for found in options if found is not None and found >= today), None)


def _real(year: int, month: int, day: int) -> date | None:
    if not (1 <= month <= 12 and 1 <= year <= 9998 and 1 <= day <= monthrange(year, month)[1]):
        return None
    return date(year, month, day)


# --- from words --------------------------------------------------------------------------------

_OFF = frozenset(
    ("libur", "libr", "lbr", "liburan", "cuti", "cti", "off", "offday", "perai", "prei", "leave")
)
_BEFORE_IT = frozenset(
    ("saya", "sy", "sya", "aku", "ku", "kami", "izin", "ijin", "mau", "lagi", "lg", "sedang",
     "sdg", "masih", "msh", "minta", "ambil", "mohon", "duty")
)  # fmt: skip
_AROUND = frozenset(
    ("pak", "bu", "bapak", "ibu", "pk", "bpk", "mas", "mbak", "bang", "kak", "dek", "ndan", "bos",
     "komandan", "admin", "min", "maaf", "maap", "mohon", "maklum", "terima", "kasih", "makasih",
     "trims", "mksh", "thx", "assalamualaikum", "selamat", "pagi", "siang", "sore", "malam",
     "halo", "lapor", "dulu", "ya", "yah", "nih", "saja", "aja", "🙏", "jangkau")
)  # fmt: skip
_UNTIL = frozenset(("sampai", "smpai", "sampe", "smp", "hingga", "sd", "s/d", "s.d", "until", "-"))
_FROM = frozenset(("mulai", "dari", "sejak", "from", "per"))
_OF_TIME = frozenset(("selama", "slama", "for"))
_DAYS = frozenset(("hari", "hr", "hri", "day", "days"))
_WEEKS = frozenset(("minggu", "mgg", "mggu", "pekan", "week", "weeks"))
_THIS = frozenset(("ini", "this"))
_NEXT = frozenset(("depan", "next"))
_NUMBERS = {
    word: number
    for number, words in enumerate(
        ("satu", "dua", "tiga", "empat", "lima", "enam", "tujuh", "delapan", "sembilan", "sepuluh"),
        start=1,
    )
    for word in (words,)
}
_SPANS = {"sehari": 1, "seharian": 1, "seminggu": 7, "sepekan": 7}
_WEEKDAYS = {
    word: number
    for number, words in enumerate(
        (
            ("senin", "snin", "monday"), ("selasa", "slasa", "tuesday"),
            ("rabu", "rebo", "wednesday"), ("kamis", "kmis", "thursday"),
            ("jumat", "jum'at", "jmat", "friday"), ("sabtu", "sbtu", "saturday"),
            ("minggu", "ahad", "sunday"),
        )
    )
    for word in words
}  # fmt: skip
_MONTHS = {
    word: number
    for number, words in enumerate(
        (
            ("januari", "jan"), ("februari", "feb", "pebruari"), ("maret", "mar", "mrt"),
            ("april", "apr"), ("mei",), ("juni", "jun"), ("juli", "jul"),
            ("agustus", "agt", "agst", "ags", "agu"), ("september", "sep", "sept"),
            ("oktober", "okt", "oct"), ("november", "nov", "nop", "nopember"),
            ("desember", "des", "dec"),
        ),
        start=1,
    )
    for word in words
}  # fmt: skip
_NEAR_DAYS = {
    "besok": 1, "bsk": 1, "besuk": 1, "isok": 1, "tomorrow": 1, "lusa": 2, "today": 0,
}  # fmt: skip


def leave_in(words: Sequence[str]) -> Leave | None:
    """The leave that a text is, word for word; None for any other text.

    ``words`` are folded, without the answer code; "s/d" and "5/12" are one word each.
    """
    left = [word for word in words if word not in (".", ",", "!", ":", "\n")]
    off = next((place for place, word in enumerate(left) if word in _OFF), None)
    if off is None:
        return None
    before = [word for word in left[:off] if word not in _BEFORE_IT | _AROUND]
    after = [word for word in left[off + 1 :] if word not in _AROUND]
    while after and after[0] in ("duty", "kerja", "tugas", "jaga", "piket"):
        after = after[1:]
    if not before:
        return _span(after)
    # "Mulai besok libur 3 hari", "besok libur".
    start, rest = _start(before, bare=True)
    if start is None or rest:
        return None
    if not after:
        return Leave(first=start)
    found = _span(after)
    return replace(found, first=start) if found and found.first == TODAY else None


@dataclass(frozen=True)
class _Taken:
    found: Day | None
    rest: list[str] = field(default_factory=list)


def _span(words: list[str]) -> Leave | None:
    """What follows "libur": a length, an end, a day or a week, and where it starts."""
    if not words:
        return None
    start, rest = _start(words, bare=False)
    first = start or TODAY
    if start is not None and not rest:
        return None  # "libur mulai besok": to when?
    found, rest = _end(rest, first)
    if found is None:
        return None
    if rest and start is None and found.days is not None:
        start, rest = _start(rest, bare=False)
        found = replace(found, first=start or TODAY)
    return None if rest else found


def _start(words: list[str], *, bare: bool) -> tuple[Day | None, list[str]]:
    if words and words[0] in _FROM:
        taken = _day(words[1:])
    elif bare:
        taken = _day(words)
    else:
        return None, words
    return (taken.found, taken.rest) if taken.found else (None, words)


def _end(words: list[str], first: Day) -> tuple[Leave | None, list[str]]:
    if words[0] in _OF_TIME and len(words) > 1:
        words = words[1:]
    days, rest = _length(words)
    if days is not None:
        return Leave(first=first, days=days), rest
    if words[0] in _UNTIL:
        taken = _day(words[1:])
        return (Leave(first=first, last=taken.found) if taken.found else None), taken.rest
    if words[0] in _WEEKS and len(words) > 1 and first == TODAY:
        if words[1] in _THIS:
            return Leave(weeks_ahead=0), words[2:]
        if words[1] in _NEXT:
            return Leave(weeks_ahead=1), words[2:]
    if first != TODAY:
        return None, words
    taken = _day(words)
    if taken.found is None:
        return None, words
    if taken.rest and taken.rest[0] in _UNTIL:
        # "Libur senin sampai rabu", "libur 5-7 desember".
        last = _day(taken.rest[1:])
        found = taken.found
        if last.found is not None and found.day is not None and found.month is None:
            found = replace(found, month=last.found.month, year=last.found.year)
        return (Leave(first=found, last=last.found) if last.found else None), last.rest
    return Leave(first=taken.found), taken.rest


def _length(words: list[str]) -> tuple[int | None, list[str]]:
    """How many days: "3 hari", "seminggu", "dua minggu"."""
    if words[0] in _SPANS:
        return _SPANS[words[0]], words[1:]
    number = _number(words[0])
    if number is None or len(words) < 2 or not number:
        return None, words
    if words[1] in _DAYS:
        return number, words[2:]
    return (7 * number, words[2:]) if words[1] in _WEEKS else (None, words)


def _number(word: str) -> int | None:
    if word.isascii() and word.isdigit() and len(word) <= 2:
        return int(word)
    return _NUMBERS.get(word)


def _day(words: Sequence[str]) -> _Taken:
    """The day that the words begin with, and what is behind it."""
    left = list(words)
    named = bool(left) and left[0] in ("hari", "hr", "tanggal", "tgl", "tg")
    word = left[0] if left else ""
    if word in ("hari", "hr") and left[1:2] and left[1] in _THIS:
        return _Taken(TODAY, left[2:])
    if named:
        left = left[1:]
    if not left:
        return _Taken(None)
    first, rest = left[0], left[1:]
    if first in _NEAR_DAYS:
        return _Taken(Day(in_days=_NEAR_DAYS[first]), rest)
    if first in _WEEKDAYS:
        if rest and rest[0] in _NEXT | {"lalu", "kemarin"}:
            return _Taken(None, left)  # which of two Mondays, people do not agree
        return _Taken(Day(weekday=_WEEKDAYS[first]), rest)
    return _date(first, rest, named=named and word not in ("hari", "hr"))


def _date(first: str, rest: list[str], *, named: bool) -> _Taken:
    """ "5 desember", "5 des 2027", "5/12", "tgl 5", and a bare "5" before "-7 desember"."""
    numbers = first.replace("-", "/").replace(".", "/").split("/")
    if len(numbers) in (2, 3) and all(n.isascii() and n.isdigit() for n in numbers):
        day, month, *year = (int(n) for n in numbers)
        full = [2000 + y if y < 100 else y for y in year]
        return _Taken(Day(day=day, month=month, year=full[0] if full else None), rest)
    number = _number(first)
    if number is None or not 1 <= number <= 31:
        return _Taken(None)
    if rest and rest[0] in _MONTHS:
        year_said = rest[1:2] and rest[1].isascii() and rest[1].isdigit() and len(rest[1]) == 4
        found = Day(day=number, month=_MONTHS[rest[0]], year=int(rest[1]) if year_said else None)
        return _Taken(found, rest[2:] if year_said else rest[1:])
    follows = bool(rest) and rest[0] in _UNTIL
    return _Taken(Day(day=number), rest) if named or follows else _Taken(None)


_DUTY_PAGE = frozenset(("jadwal", "jadwalnya", "jadual", "jdwal", "schedule"))
_OF_THE_PAGE = frozenset(
    ("saya", "sy", "ku", "minta", "mohon", "lihat", "liat", "cek", "link", "jaga", "piket", "tugas",
     "dinas", "relawan", "mau", "izin", "tolong", "kirim", "my")
)  # fmt: skip


def asks_for_the_duty_page(words: Sequence[str]) -> bool:
    """Whether a text asks for one's own duty times ("jadwal", "minta jadwal saya") and no more."""
    left = {word for word in words if word not in (".", ",", "!", ":", "?", "\n")}
    return bool(left & _DUTY_PAGE) and left <= _DUTY_PAGE | _OF_THE_PAGE | _AROUND
