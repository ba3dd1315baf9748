"""Who was asked what: the offers and tests of reachability that an answer can be about."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from shared.database import Row, execute, sql
from shared.events import OfferAssigned, OfferMade, PingedVolunteer, Reporter, VolunteerPinged

Asking = OfferMade | OfferAssigned | VolunteerPinged
ASKING = (OfferMade, OfferAssigned, VolunteerPinged)

_REMEMBER = sql("""
    INSERT INTO asked
        (offer_id, kind, case_id, district, drill, volunteer_id, phone, email, language,
         answer_code, respond_by, made, reporter)
    SELECT offer_id, kind, case_id, district, drill, volunteer_id, phone, email, language,
           answer_code, respond_by, made, reporter
    FROM jsonb_to_recordset(CAST(:asked AS jsonb)) AS a
        (offer_id uuid, kind text, case_id uuid, district text, drill boolean, volunteer_id uuid,
         phone text, email text, language text, answer_code text, respond_by timestamptz,
         made jsonb, reporter jsonb)
    -- A coordinator can give out an offer again that had ended: another event, the same offer.
    ON CONFLICT (offer_id) DO UPDATE
    SET respond_by = excluded.respond_by, made = excluded.made, phone = excluded.phone,
        email = excluded.email, outcome = NULL,
        reporter = coalesce(excluded.reporter, asked.reporter)
""")
_REPORTERS = sql("""
    UPDATE asked SET reporter = told.reporter
    FROM jsonb_to_recordset(CAST(:told AS jsonb)) AS told (offer_id uuid, reporter jsonb)
    WHERE asked.offer_id = told.offer_id
""")
_OUTCOMES = sql("""
    -- Whoever has the case no longer has no use for the reporter's number.
    UPDATE asked SET outcome = o.outcome, reporter = NULL
    FROM unnest(CAST(:offers AS uuid[]), CAST(:outcomes AS text[])) AS o (offer_id, outcome)
    WHERE asked.offer_id = o.offer_id
""")
# `state` as in offer_states; a test of reachability is over when its time is.
_SELECT = """
    SELECT a.offer_id, a.kind, a.case_id, a.district, a.drill, a.volunteer_id, a.phone, a.email,
           a.language, a.answer_code, a.respond_by, a.made, a.reporter, a.outcome, a.asked_at,
           CASE WHEN a.kind = 'ping' AND a.respond_by <= now() THEN 'ended'
                     ELSE coalesce(s.state, 'open') END AS state
    FROM asked a LEFT JOIN offer_states s USING (offer_id)
"""
_FIND = sql(f"{_SELECT} WHERE a.offer_id = :offer")
_WITH_CODE = sql(f"{_SELECT} WHERE a.answer_code = :code ORDER BY a.asked_at DESC LIMIT 20")
# Codes come again after millions: an old one of the same person is not what they answer today.
_OF = sql(f"""
    {_SELECT}
    WHERE (a.phone = :sender OR lower(a.email) = lower(:sender))
      AND a.asked_at > now() - interval '30 days'
    ORDER BY a.asked_at DESC LIMIT 200
""")


async def remember(session: AsyncSession, events: Sequence[Asking]) -> None:
    """Keep what these events say of whom they ask."""
    # The last one of an offer counts: a statement must not change a row twice.
    rows = {row["offer_id"]: row for row in map(_row, events)}
    if rows:
        await execute(session, _REMEMBER, {"asked": json.dumps(list(rows.values()))})


def _row(event: Asking) -> dict[str, Any]:
    made, volunteer = event.data, event.data.volunteer
    reporter = None if isinstance(made, PingedVolunteer) else made.reporter
    return {
        "offer_id": str(made.ping_id if isinstance(made, PingedVolunteer) else made.offer_id),
        "kind": "ping" if isinstance(made, PingedVolunteer) else "offer",
        "case_id": str(event.subject),
        "district": event.district,
        "drill": event.drill,
        "volunteer_id": str(volunteer.id),
        "phone": volunteer.phone,
        "email": volunteer.email,
        "language": volunteer.language,
        "answer_code": made.answer_code,
        "respond_by": made.respond_by.isoformat(),
        "made": made.model_dump(mode="json", exclude={"reporter"}),
        "reporter": reporter.model_dump(mode="json") if reporter else None,
    }


async def tell_reporters(session: AsyncSession, reporters: dict[UUID, Reporter]) -> None:
    """Keep who reported the case, for the volunteer who has it now; by offer."""
    if reporters:
        told = [
            {"offer_id": str(offer), "reporter": reporter.model_dump(mode="json")}
            for offer, reporter in reporters.items()
        ]
        await execute(session, _REPORTERS, {"told": json.dumps(told)})


async def note_outcomes(session: AsyncSession, outcomes: dict[UUID, str]) -> None:
    """Keep why these offers are over: a verdict of answer.judged, or a reason of offer.closed."""
    if outcomes:
        await execute(
            session,
            _OUTCOMES,
            {"offers": list(outcomes), "outcomes": list(outcomes.values())},
        )


async def find(session: AsyncSession, offer_id: UUID) -> Row | None:
    """What is known of one offer (models.Asked), with its ``state``; None if nothing is."""
    rows = await execute(session, _FIND, {"offer": offer_id})
    return rows[0] if rows else None


async def with_code(session: AsyncSession, code: str) -> Sequence[Row]:
    """The offers that have or had this answer code, the newest first."""
    return await execute(session, _WITH_CODE, {"code": code})


async def of(session: AsyncSession, sender: str) -> Sequence[Row]:
    """What somebody was asked in the last 30 days, by telephone number (E.164) or e-mail address,
    the newest first."""
    return await execute(session, _OF, {"sender": sender})
