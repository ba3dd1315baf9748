"""What volunteers write about their duty: days off by SMS, and the link to their duty page.

Who they are is told by the number or address that they wrote from, and by nothing else. Days off
begin at once. What they are asked for goes to the next volunteer; what they have stays theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import duty
from services.assignment.loop import UnknownDistrict
from services.assignment.turn import OPEN, Turn
from services.assignment.volunteers import off_until_moment
from shared import outbox
from shared.database import Row, execute, sql
from shared.districts import District, why_not
from shared.events import (
    AnsweredDuty,
    DutyAnswered,
    DutyPageAsked,
    OfferedVolunteer,
    VolunteerOffDuty,
)

OnDuty = VolunteerOffDuty | DutyPageAsked
# Makes the address of a volunteer's duty page; None where there is none.
DutyLink = Callable[[UUID], str | None]

# Longer is a slip in a date, or a matter for the coordinator.
LONGEST = timedelta(days=366)
# Of the cases that somebody has, the codes that a message can name.
CODES_AT_MOST = 5

# Of one person who serves two districts there are two.
_WRITERS = sql("""
    SELECT id, district, name, phone, email, language, channel FROM volunteers
    WHERE phone = ANY (CAST(:phones AS text[])) OR lower(email) = ANY (CAST(:emails AS text[]))
    ORDER BY id
""")
_OPEN_CASES = sql("""
    SELECT DISTINCT case_id FROM offers
    WHERE volunteer_id = ANY (CAST(:ids AS uuid[])) AND state = 'offered'
""")
_OFF = sql("""
    UPDATE volunteers
    SET off_until = :until, updated_at = now(),
        last_reached_at = greatest(last_reached_at, least(CAST(:at AS timestamptz), now()))
    WHERE id = :id
""")
_HELD = sql("""
    SELECT volunteer_id, answer_code FROM offers
    WHERE volunteer_id = ANY (CAST(:ids AS uuid[])) AND state IN ('accepted', 'arrived')
    ORDER BY made_at, id
""")


async def writers(session: AsyncSession, said: Sequence[OnDuty]) -> dict[UUID, list[Row]]:
    """Whose number or address each of these events came from, by the event's id."""
    if not said:
        return {}
    values = {
        "phones": [event.data.phone for event in said if event.data.phone],
        "emails": [event.data.email.lower() for event in said if event.data.email],
    }
    found = await execute(session, _WRITERS, values)
    return {
        event.id: [row for row in found if _is_theirs(row, event.data.phone, event.data.email)]
        for event in said
    }


def _is_theirs(row: Row, phone: str | None, email: str | None) -> bool:
    if phone is not None:
        return bool(row.phone == phone)
    return email is not None and (row.email or "").lower() == email.lower()


async def open_cases(session: AsyncSession, who: Mapping[UUID, Sequence[Row]]) -> list[UUID]:
    """The cases that these volunteers are asked for now: the turn has to hold them.

    An offer that is made between this look and the turn of its district is not among them; it ends
    with their answer, or at its deadline.
    """
    ids = [row.id for rows in who.values() for row in rows]
    return [row.case_id for row in await execute(session, _OPEN_CASES, {"ids": ids})] if ids else []


async def begin(
    session: AsyncSession,
    turn: Turn,
    said: Sequence[OnDuty],
    who: Mapping[UUID, Sequence[Row]],
    *,
    districts: Mapping[str, District],
) -> None:
    """Let the days off begin, and ask others instead; before anybody is looked for.

    Raises:
        UnknownDistrict: the volunteer is of a district without a folder here.
    """
    for event in said:
        if not isinstance(event, VolunteerOffDuty):
            continue
        for row in who[event.id]:
            timezone = _timezone(row, districts)
            if not _possible(event.data.last_day, turn.moment, timezone):
                continue
            _decline_open(turn, row.id, event.data.words)
            until = off_until_moment(event.data.last_day, timezone=timezone)
            await execute(session, _OFF, {"id": row.id, "until": until, "at": event.time})
            await duty.recompute(session, [row.id], timezones={row.district: timezone})


def _timezone(row: Row, districts: Mapping[str, District]) -> str:
    if row.district not in districts:
        raise UnknownDistrict(why_not(districts, row.district))
    return districts[row.district].timezone


def _possible(last_day: date, moment: datetime, timezone: str) -> bool:
    """Whether it is not over already, by the district's calendar, and not absurdly far away."""
    today = moment.astimezone(ZoneInfo(timezone)).date()
    return today <= last_day <= today + LONGEST


def _decline_open(turn: Turn, volunteer: UUID, words: str | None) -> None:
    for offer in list(turn.offers.values()):
        if offer.volunteer.id == volunteer and offer.state in OPEN:
            case = turn.cases[offer.case_id]
            offer.words = words or offer.words
            turn.close_offer(offer, "declined", "off_duty")
            turn.log(case, "declined", offer=offer.id, why=words)
            turn.seeking.add(case.id)


async def answer(
    session: AsyncSession,
    said: Sequence[OnDuty],
    who: Mapping[UUID, Sequence[Row]],
    *,
    moment: datetime,
    districts: Mapping[str, District],
    link: DutyLink,
) -> None:
    """Say back what became of it; after everything else of the turn was written."""
    ids = [row.id for rows in who.values() for row in rows]
    held: dict[UUID, list[str]] = {}
    for offer in await execute(session, _HELD, {"ids": ids}) if ids else ():
        held.setdefault(offer.volunteer_id, []).append(offer.answer_code)
    events: list[DutyAnswered] = []
    for event in said:
        told: list[AnsweredDuty] = []
        for row in who[event.id]:
            told.append(_answer(event, row, held.get(row.id, []), moment, districts, link))
        # A number that is no volunteer's (any more) gets a sentence, and no link.
        nobody = AnsweredDuty(about="unknown", phone=event.data.phone, email=event.data.email)
        events += [
            DutyAnswered.of(
                each,
                case_id=each.volunteer.id if each.volunteer else event.subject,
                district=event.district,
                time=moment,
            )
            for each in told or [nobody]
        ]
    await outbox.publish(session, events)


def _answer(
    event: OnDuty,
    row: Row,
    held: Sequence[str],
    moment: datetime,
    districts: Mapping[str, District],
    link: DutyLink,
) -> AnsweredDuty:
    volunteer = OfferedVolunteer(
        id=row.id,
        name=row.name,
        phone=row.phone,
        email=row.email,
        language=row.language,
        # They hear of it by the way that they came.
        channel="sms" if event.data.phone else "email",
    )
    if isinstance(event, DutyPageAsked):
        return AnsweredDuty(about="duty_page", volunteer=volunteer, link=link(row.id))
    last_day = event.data.last_day
    if not _possible(last_day, moment, _timezone(row, districts)):
        return AnsweredDuty(about="refused", volunteer=volunteer, last_day=last_day)
    return AnsweredDuty(
        about="off_duty",
        volunteer=volunteer,
        last_day=last_day,
        holds=list(held[:CODES_AT_MOST]),
    )
