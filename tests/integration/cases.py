"""What the tests of cases share: a policy whose figures they know, volunteers, reports, answers."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from services.assignment import answers, loop
from shared import topics
from shared.database import Database, execute, sql
from shared.districts import District
from shared.events import CaseReported, OfferAnswered, PublicCase
from tests.factories import KOBA, offer_answered
from tests.integration.conftest import one, rows, run

Districts = Mapping[str, District]


def with_policy(districts: Districts, **figures: Any) -> dict[str, District]:
    """The sample district with a plain policy: one at a time, also of the offers that a volunteer
    may have; 40 km, no rest; and these figures."""
    district = districts["19.04"]
    plain: dict[str, Any] = {
        "answer_within": {"normal": timedelta(minutes=10), "urgent": timedelta(minutes=5)},
        "answer_times": (),
        "parallel": {"normal": 1, "urgent": 1},
        "steps_m": (40_000.0,),
        "rounds": 1000,
        "first_roles": (),
        "neighbours": (),
        "retry_after": timedelta(seconds=60),
        "same_distance_m": 0.001,
        "busy_counts_m": 0.0,
        "escalate_after": {"normal": timedelta(days=1), "urgent": timedelta(days=1)},
        "arrive_within": timedelta(minutes=90),
        "report_within": timedelta(hours=8),
        "rest": timedelta(0),
        "needs": {},
        "open_offers": 1,
    }
    return {"19.04": replace(district, policy=replace(district.policy, **plain | figures))}


async def volunteer(database: Database, latitude: float, longitude: float, **values: Any) -> UUID:
    """Somebody who can be asked, living there."""
    id_ = uuid7()
    row: dict[str, Any] = {
        "id": id_,
        "district": "19.04",
        "name": "Siti",
        "role": "psm",
        "phone": f"+62{id_.int % 10**10}",
        "latitude": latitude,
        "longitude": longitude,
        "categories": [],
        "capacity": 1,
        "open_cases": 0,
        "on_duty": True,
        **values,
    }
    names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    await run(database, f"INSERT INTO volunteers ({names}) VALUES ({places})", **row)  # noqa: S608
    return id_


async def in_hand(database: Database, volunteer: UUID, cases: int) -> None:
    """As if a volunteer had accepted so many cases; else the database counts by itself."""
    async with database.transaction() as session:
        await execute(session, sql("SET LOCAL session_replication_role = replica"))
        taken = sql("UPDATE volunteers SET open_cases = :cases WHERE id = :id")
        await execute(session, taken, {"id": volunteer, "cases": cases})


async def report(database: Database, policy: Districts, *reports: CaseReported) -> None:
    """Let the cases be opened as the handler does."""
    async with database.transaction() as session:
        await loop.open_cases(session, reports, districts=policy)


async def asked(database: Database) -> dict[UUID, UUID]:
    """Case id -> who has its only offer."""
    found = await rows(database, "SELECT case_id, volunteer_id FROM offers")
    assert len({row.case_id for row in found}) == len(found)
    return {row.case_id: row.volunteer_id for row in found}


async def offers_of(database: Database, reported: CaseReported) -> list[Any]:
    """All offers of a case, in the order in which they were made."""
    return await rows(
        database,
        "SELECT * FROM offers WHERE case_id = :id ORDER BY made_at, slot",
        id=who(reported),
    )


async def open_offer(database: Database, reported: CaseReported) -> Any:
    """The only open offer of a case."""
    (offer,) = [o for o in await offers_of(database, reported) if o.state == "offered"]
    return offer


async def answer(
    database: Database, policy: Districts, offer: Any, word: str, **values: Any
) -> str:
    """Let a volunteer answer as the handler does; returns the verdict."""
    event: OfferAnswered = offer_answered(
        case_id=offer.case_id,
        offer_id=offer.id,
        answer=word,
        **{"volunteer_id": offer.volunteer_id, **values},
    )
    async with database.transaction() as session:
        await answers.take_answers(session, [event], districts=policy)
    verdict: str = await one(
        database, "SELECT verdict FROM answers WHERE event_id = :id", id=event.id
    )
    return verdict


async def sweep(database: Database, policy: Districts) -> int:
    """One sweep over the cases, after those who are waited for have become available."""
    async with database.transaction() as session:
        await loop.wake(session, districts=policy)
    async with database.transaction() as session:
        return len(await loop.sweep(session, districts=policy))


async def time_passes(database: Database, reported: CaseReported, by: timedelta) -> None:
    """As if all moments of a case lay so much farther back."""
    for statement in (
        """UPDATE cases SET next_action_at = next_action_at - CAST(:by AS interval),
                            escalate_at = escalate_at - CAST(:by AS interval) WHERE id = :id""",
        """UPDATE offers SET respond_by = respond_by - CAST(:by AS interval)
           WHERE case_id = :id AND state = 'offered'""",
    ):
        await run(database, statement, id=who(reported), by=by)


async def feed_of(database: Database, reported: CaseReported) -> list[tuple[int, str]]:
    """The public life of a case: version and state of each event."""
    return [
        (event.data.version, event.data.state)
        for event in await published(database)
        if isinstance(event.data, PublicCase) and event.subject == reported.subject
    ]


async def published(database: Database) -> list[Any]:
    """The events in the outbox, in its order."""
    found = await rows(database, "SELECT topic, payload FROM outbox ORDER BY id")
    return [topics.named(row.topic).decode(row.payload.encode()) for row in found]


async def state_of(database: Database, reported: CaseReported) -> Any:
    (case,) = await rows(
        database, "SELECT * FROM cases WHERE id = :id", id=UUID(str(reported.subject))
    )
    return case


def who(reported: CaseReported) -> UUID:
    return UUID(str(reported.subject))


async def people(db: Database, count: int, **values: Any) -> list[UUID]:
    """Volunteers in a row going north, a kilometre apart, the nearest first."""
    return [
        await volunteer(db, KOBA[0] + number * 0.009, KOBA[1], **values)
        for number in range(1, count + 1)
    ]


async def events_of(db: Database, kind: type[Any]) -> list[Any]:
    """Of the events that were published those of this kind, in order."""
    return [event for event in await published(db) if isinstance(event, kind)]
