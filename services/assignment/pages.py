"""The page on which volunteers say when they can be asked. It opens with a signed link.

GET shows and POST acts: mail scanners follow links.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.datastructures import FormData

from services.assignment import duty, volunteers
from services.assignment.models import Volunteer
from services.assignment.standing import most_offers, standing
from shared.database import Database, now
from shared.districts import District
from shared.pages import HEADERS
from shared.security import BadLink, Links

TEMPLATES = Path(__file__).parent / "templates"
PURPOSE = "volunteer"  # what the links are signed for

DAY_NAMES = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "id": ("Senin", "Selasa", "Rabu", "Kamis", "Jumat", "Sabtu", "Minggu"),
}
_MONTHS = {
    "en": ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
    "id": ["Jan", "Feb", "Mar", "Apr", "Mei", "Jun", "Jul", "Agu", "Sep", "Okt", "Nov", "Des"],
}
# As many schedules as the form has: most people have one, and another one for the weekend.
SCHEDULES = 2

_MISTAKES = {
    "en": {
        "day": "Tick at least one day, or choose “At any time”.",
        "hours": "Fill in from and until for the days that you have ticked.",
        "date": "“Away until” is not a date; write it as 31/12/2026.",
        "switch": "Choose whether you are on duty.",
    },
    "id": {
        "day": "Centang paling sedikit satu hari, atau pilih “Setiap saat”.",
        "hours": "Isi “Dari jam” dan “Sampai jam” untuk hari yang Anda centang.",
        "date": "“Libur sampai dengan” bukan tanggal; tulis seperti 31/12/2026.",
        "switch": "Pilih apakah Anda siap bertugas.",
    },
}


@dataclass(frozen=True)
class Schedule:
    """Days with the same times, as the form shows them."""

    number: int
    days: Sequence[int] = ()
    start: str = ""
    end: str = ""


@dataclass(frozen=True)
class Entered:
    """What the form shows: what is stored, or what was just typed and is not yet right."""

    on_duty: bool | None
    always: bool
    windows: Sequence[Schedule]
    text: str | None  # instead of the schedules, where these cannot hold what is stored
    off_until: str


class Mistake(Exception):
    """Something typed that cannot be stored, with a sentence in the volunteer's language."""


def duty_link(links: Links, volunteer_id: UUID, *, public_url: str) -> str:
    """The address of a volunteer's page."""
    return f"{public_url.rstrip('/')}/v/{links.token(PURPOSE, str(volunteer_id))}"


def router(
    database: Database, *, links: Links, max_age: timedelta, districts: Mapping[str, District]
) -> APIRouter:
    """The page; a link older than ``max_age`` no longer opens it."""
    pages = APIRouter(include_in_schema=False)
    templates = Jinja2Templates(directory=TEMPLATES)
    templates.env.trim_blocks = templates.env.lstrip_blocks = True

    def closed(request: Request, status: int, why: str) -> Response:
        return templates.TemplateResponse(
            request, "closed.html", {"why": why}, status_code=status, headers=HEADERS
        )

    def refused(request: Request, error: BadLink) -> Response:
        return closed(request, *((410, "old") if error.too_old else (403, "forged")))

    async def page(
        request: Request,
        session: AsyncSession,
        volunteer: Volunteer,
        *,
        entered: Entered | None = None,
        mistake: str | None = None,
    ) -> Response:
        timezone = volunteers.district_of(volunteer, districts).timezone
        moment = await now(session)
        when = _Clock(timezone, volunteer.language, moment)
        return templates.TemplateResponse(
            request,
            "duty.html",
            {
                "volunteer": volunteer,
                "days": DAY_NAMES[volunteer.language],
                "form": entered or _stored(volunteer, timezone=timezone, moment=moment),
                "mistake": mistake,
                "saved": mistake is None and "saved" in request.query_params,
                "last_day_off": when.last_day_off(volunteer.off_until),
                "times": duty.format_times(volunteer.duty_times, language=volunteer.language),
                "when": when,
                "today": moment.astimezone(ZoneInfo(timezone)).date().isoformat(),
                "work": await volunteers.open_work(session, volunteer.id),
                "stands": standing(
                    volunteer,
                    moment=moment,
                    most_offers=most_offers(volunteer, districts),
                ),
            },
            status_code=422 if mistake else 200,
            headers=HEADERS,
        )

    @pages.get("/v/{token}")
    async def show(request: Request, token: str) -> Response:
        """Show the page; changes nothing."""
        try:
            volunteer_id = UUID(links.value(PURPOSE, token, max_age))
            async with database.transaction() as session:
                volunteer = await volunteers.get(session, volunteer_id)
                return await page(request, session, volunteer)
        except BadLink as error:
            return refused(request, error)
        except (volunteers.UnknownVolunteer, volunteers.UnknownDistrict):
            return closed(request, 410, "gone")

    @pages.post("/v/{token}")
    async def change(request: Request, token: str) -> Response:
        """Store what was entered, or say what is wrong with it."""
        try:
            volunteer_id = UUID(links.value(PURPOSE, token, max_age))
        except BadLink as error:
            return refused(request, error)
        form = await request.form()
        try:
            async with database.transaction() as session:
                volunteer = await volunteers.get(session, volunteer_id)
                timezone = volunteers.district_of(volunteer, districts).timezone
                try:
                    changes = _changes(form, volunteer, timezone=timezone)
                except Mistake as error:
                    return await page(
                        request,
                        session,
                        volunteer,
                        entered=_typed(form),
                        mistake=str(error),
                    )
                await volunteers.change(session, volunteer_id, changes, districts=districts)
        except (volunteers.UnknownVolunteer, volunteers.UnknownDistrict):
            return closed(request, 410, "gone")
        except volunteers.NotChanged:
            return closed(request, 409, "unreachable")
        # Without the path: a proxy may have put something before it.
        return RedirectResponse("?saved=1", 303, headers=HEADERS)

    return pages


# --- what the form shows --------------------------------------------------------------------------


def _stored(volunteer: Volunteer, *, timezone: str, moment: datetime) -> Entered:
    over = volunteer.off_until is None or volunteer.off_until <= moment
    times = volunteer.duty_times
    fits = len(times) <= SCHEDULES
    schedules = [
        # A time field knows no 24:00.
        Schedule(number, entry["days"], entry["from"], entry["to"].replace("24:00", "00:00"))
        for number, entry in enumerate(times[:SCHEDULES])
    ]
    return Entered(
        on_duty=volunteer.on_duty,
        always=not times,
        windows=schedules + [Schedule(number) for number in range(len(schedules), SCHEDULES)],
        text=None if fits else duty.format_times(times, language=volunteer.language),
        off_until="" if over else _last_day_off(volunteer, timezone=timezone),
    )


def _typed(form: FormData) -> Entered:
    return Entered(
        on_duty={"yes": True, "no": False}.get(_text(form, "on_duty")),
        always=_text(form, "times") != "hours",
        windows=_schedules(form),
        text=_text(form, "duty") if "duty" in form else None,
        off_until=_text(form, "off_until"),
    )


def _last_day_off(volunteer: Volunteer, *, timezone: str) -> str:
    text = volunteers.off_until_text(volunteer.off_until, timezone=timezone)
    return text[: len("2026-12-31")]


# --- what was entered -----------------------------------------------------------------------------


def _text(form: FormData, name: str) -> str:
    """A field of the form; empty if it is missing."""
    return str(form.get(name, "")).strip()


def _schedules(form: FormData) -> list[Schedule]:
    return [
        Schedule(
            number,
            [day for day in range(7) if str(day) in form.getlist(f"day{number}")],
            _text(form, f"from{number}"),
            _text(form, f"to{number}"),
        )
        for number in range(SCHEDULES)
    ]


def _changes(form: FormData, volunteer: Volunteer, *, timezone: str) -> dict[str, Any]:
    """What the form says, as :func:`volunteers.change` takes it; raises Mistake."""
    language = volunteer.language
    if _text(form, "on_duty") not in ("yes", "no"):
        raise _mistake(language, "switch")
    changes: dict[str, Any] = {"on_duty": _text(form, "on_duty") == "yes"}
    try:
        changes["duty"] = _times(form, language)
    except ValueError as error:
        raise Mistake(str(error)) from None
    entered = _text(form, "off_until")
    # Unchanged, it may be a moment of that day, which the field cannot show.
    if entered != _last_day_off(volunteer, timezone=timezone):
        changes["off_until"] = _date(entered, language) if entered else None
    return changes


def _times(form: FormData, language: str) -> list[duty.Window]:
    """Weekly times from the text or the schedules of the form."""
    if _text(form, "times") != "hours":
        return []
    if "duty" in form:
        return duty.parse_times(_text(form, "duty"), language=language)
    used = [schedule for schedule in _schedules(form) if schedule.days]
    if not used:
        raise _mistake(language, "day")
    if not all(schedule.start and schedule.end for schedule in used):
        raise _mistake(language, "hours")
    return [duty.window(each.days, each.start, each.end, language=language) for each in used]


def _date(text: str, language: str) -> date:
    """A date as a phone's picker sends it, or as people type it where there is no picker."""
    for pattern in ("%Y-%m-%d", "%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y"):
        try:
            found = datetime.strptime(text, pattern).date()  # noqa: DTZ007 - a day, not a moment
        except ValueError:
            continue
        if 2000 <= found.year < 2200:
            return found
    raise _mistake(language, "date")


def _mistake(language: str, what: str) -> Mistake:
    return Mistake(_MISTAKES[language][what])


class _Clock:
    """Writes moments as people of the district read them: the hour, with the day if not today."""

    def __init__(self, timezone: str, language: str, moment: datetime) -> None:
        self._zone = ZoneInfo(timezone)
        self._language = language
        self._today = moment.astimezone(self._zone).date()

    def __call__(self, moment: datetime) -> str:
        """``14:00`` or ``Monday 31 Aug, 14:00``; ``pukul 14.00``, ``Senin 31 Agu pukul 14.00``."""
        local = moment.astimezone(self._zone)
        clock, between = f"{local:%H:%M}", ", "
        if self._language == "id":
            clock, between = f"pukul {local:%H.%M}", " "
        today = local.date() == self._today
        return clock if today else f"{self._day(local.date())}{between}{clock}"

    def last_day_off(self, until: datetime | None) -> str:
        """The last day off, or the moment if leave ends within a day."""
        if until is None:
            return ""
        local = until.astimezone(self._zone)
        if local.time() != time():
            return self(until)
        return self._day(local.date() - timedelta(days=1))

    def _day(self, day: date) -> str:
        name = DAY_NAMES[self._language][day.weekday()]
        year = "" if day.year == self._today.year else f" {day.year}"
        return f"{name} {day.day} {_MONTHS[self._language][day.month - 1]}{year}"
