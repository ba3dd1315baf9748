"""Days off by SMS and the duty page: what a volunteer writes, and what assignment makes of it."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from uuid_utils.compat import uuid7

from services.assignment import answers, duty
from shared.database import Database
from shared.districts import District
from shared.events import (
    AskedDutyPage,
    DutyAnswered,
    DutyPageAsked,
    OffDutyVolunteer,
    OfferClosed,
    VolunteerOffDuty,
)
from tests.factories import DISTRICT, case_reported, offer_answered
from tests.integration.cases import (
    answer,
    events_of,
    feed_of,
    offers_of,
    open_offer,
    people,
    report,
    state_of,
    sweep,
    volunteer,
    with_policy,
)
from tests.integration.conftest import rows, run

WIB = ZoneInfo("Asia/Jakarta")
PHONE = "+6281234567890"


@pytest.fixture
def db(assignment_database: Database) -> Database:
    return assignment_database


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    return with_policy(districts)


def today() -> date:
    return datetime.now(WIB).date()


def off_duty(last_day: date, *, phone: str | None = PHONE, **values: Any) -> VolunteerOffDuty:
    data = {"last_day": last_day, "channel": "sms", "words": "libur", "phone": phone, **values}
    event: VolunteerOffDuty = VolunteerOffDuty.of(
        OffDutyVolunteer.model_validate(data),
        case_id=uuid7(),
        district=DISTRICT,
        time=datetime.now(UTC),
    )
    return event


def page_asked(*, phone: str | None = PHONE, email: str | None = None) -> DutyPageAsked:
    event: DutyPageAsked = DutyPageAsked.of(
        AskedDutyPage(channel="sms", phone=phone, email=email),
        case_id=uuid7(),
        district=DISTRICT,
        time=datetime.now(UTC),
    )
    return event


async def take(db: Database, policy: dict[str, District], *events: Any) -> list[Any]:
    """Let these be handled in one batch; returns what volunteers are told about their duty."""
    async with db.transaction() as session:
        await answers.take_answers(
            session,
            list(events),
            districts=policy,
            duty_link=lambda id_: f"https://jangkau.example.org/v/{id_}",
        )
    return [event.data for event in await events_of(db, DutyAnswered)]


async def someone(db: Database) -> UUID:
    """The nearest volunteer, who writes from PHONE."""
    (first,) = await people(db, 1)
    await run(db, "UPDATE volunteers SET phone = :phone WHERE id = :id", phone=PHONE, id=first)
    return first


async def of(db: Database, id_: UUID) -> Any:
    (row,) = await rows(db, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    return row


async def test_days_off_last_to_the_end_of_that_day_in_the_district(
    db: Database, policy: dict[str, District]
) -> None:
    siti = await someone(db)
    last = today() + timedelta(days=2)
    (told,) = await take(db, policy, off_duty(last))
    assert (told.about, told.last_day, told.holds) == ("off_duty", last, [])
    assert (told.volunteer.id, told.volunteer.phone) == (siti, PHONE)
    row = await of(db, siti)
    assert row.off_until == datetime.combine(last + timedelta(days=1), datetime.min.time(), WIB)
    assert (row.ready, row.available, row.ready_changes_at) == (False, False, row.off_until)
    assert row.last_reached_at is not None
    case = case_reported()
    await report(db, policy, case)
    assert await offers_of(db, case) == [], "who is off is left alone"


async def test_an_open_offer_of_who_is_off_goes_to_the_next_volunteer_at_once(
    db: Database, policy: dict[str, District]
) -> None:
    siti = await someone(db)
    await volunteer(db, -2.4, 106.408)
    case = case_reported()
    await report(db, policy, case)
    offer = await open_offer(db, case)
    assert offer.volunteer_id == siti
    await take(db, policy, off_duty(today(), words="saya libur hari ini"))
    first, second = await offers_of(db, case)
    assert (first.state, first.words) == ("declined", "saya libur hari ini")
    assert (second.state, second.volunteer_id != siti) == ("offered", True)
    # Notification hears that nothing about it may be sent any more.
    (closed,) = await events_of(db, OfferClosed)
    assert (closed.data.offer_id, closed.data.reason) == (offer.id, "off_duty")
    assert (await of(db, siti)).open_cases == 0
    assert await answer(db, policy, offer, "accept") == "too_late"


async def test_a_case_that_they_have_stays_theirs_and_they_are_told_so(
    db: Database, policy: dict[str, District]
) -> None:
    siti = await someone(db)
    case = case_reported()
    await report(db, policy, case)
    offer = await open_offer(db, case)
    # Both in one batch: the acceptance came first.
    accepted = offer_answered(
        case_id=offer.case_id, offer_id=offer.id, answer="accept", volunteer_id=siti
    )
    (told,) = await take(db, policy, accepted, off_duty(today()))
    assert (told.about, told.holds) == ("off_duty", [offer.answer_code])
    assert (await state_of(db, case)).state == "accepted"
    assert [state for _, state in await feed_of(db, case)][-1] == "accepted"


@pytest.mark.parametrize("days", [-1, 367, 40_000])
async def test_days_off_that_are_over_or_absurdly_far_away_are_asked_back(
    db: Database, policy: dict[str, District], days: int
) -> None:
    siti = await someone(db)
    (told,) = await take(db, policy, off_duty(today() + timedelta(days=days)))
    assert told.about == "refused"
    assert (await of(db, siti)).off_until is None
    assert (await of(db, siti)).available


async def test_the_last_word_counts_and_the_same_event_twice_is_one(
    db: Database, policy: dict[str, District]
) -> None:
    siti = await someone(db)
    await take(db, policy, off_duty(today() + timedelta(days=9)), off_duty(today()))
    assert (await of(db, siti)).off_until.astimezone(WIB).date() == today() + timedelta(days=1)


async def test_who_is_back_is_asked_for_what_waits(
    db: Database, policy: dict[str, District]
) -> None:
    siti = await someone(db)
    await take(db, policy, off_duty(today()))
    case = case_reported()
    await report(db, policy, case)
    await run(
        db,
        "UPDATE volunteers SET off_until = now(), ready_changes_at = now() WHERE id = :id",
        id=siti,
    )
    async with db.transaction() as session:
        timezones = {code: one.timezone for code, one in policy.items()}
        await duty.refresh(session, timezones=timezones)
    await sweep(db, policy)
    assert (await open_offer(db, case)).volunteer_id == siti


async def test_the_link_to_the_duty_page_goes_to_the_number_of_the_volunteer_alone(
    db: Database, policy: dict[str, District]
) -> None:
    siti = await someone(db)
    told = await take(db, policy, page_asked())
    assert [(one.about, one.link) for one in told] == [
        ("duty_page", f"https://jangkau.example.org/v/{siti}")
    ]
    assert told[0].volunteer.phone == PHONE


@pytest.mark.parametrize("event", [page_asked, off_duty])
async def test_a_number_that_is_no_volunteers_gets_a_sentence_and_changes_nothing(
    db: Database, policy: dict[str, District], event: Any
) -> None:
    siti = await someone(db)
    stranger = "+6281299999999"
    made = event(phone=stranger) if event is page_asked else event(today(), phone=stranger)
    (told,) = await take(db, policy, made)
    assert (told.about, told.volunteer, told.phone) == ("unknown", None, stranger)
    assert told.link is None
    assert (await of(db, siti)).off_until is None


async def test_somebody_who_serves_two_districts_is_off_in_both(
    db: Database, policy: dict[str, District]
) -> None:
    await someone(db)
    second = await volunteer(db, -2.1, 106.1, phone=PHONE, district="19.71")
    both = {**policy, "19.71": policy["19.04"]}
    told = await take(db, both, off_duty(today()))
    assert len(told) == 2
    assert (await of(db, second)).off_until is not None
