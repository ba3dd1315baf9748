"""The coordinator's hand: give a case to somebody, take it back, close it, add a note.

Each act names who did it and why, and is a line of the case's story. The search goes by itself;
these are for what it cannot know.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.assignment import held, loop, naming, transitions
from services.assignment.turn import HELD, OPEN, Asked, Case, Turn
from shared import codes
from shared.database import column, execute, sql
from shared.districts import District, why_not
from shared.events import OfferAssigned, OfferedVolunteer
from shared.words import Line, Sentences

Why = Annotated[Sentences, StringConstraints(min_length=1, max_length=500)]


class Act(BaseModel):
    """Who acts, and why."""

    model_config = ConfigDict(extra="forbid")

    by: Line
    why: Why


class Assignment(Act):
    """Give the case to this volunteer: by id, or by phone, e-mail or name."""

    volunteer_id: UUID | None = None
    volunteer: Line | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.volunteer_id is None) is (self.volunteer is None):
            raise ValueError("Say who: volunteer_id, or volunteer (phone, e-mail or name).")
        return self


class Closing(Act):
    """End the case."""

    outcome: Literal["resolved", "referred", "not_found", "cancelled"]


class Refused(Exception):
    """The act cannot be done now; the text says why, ``missing`` that there is no such thing."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.missing = missing


@dataclass(frozen=True)
class _Volunteer:
    """Whom a coordinator has named."""

    contact: OfferedVolunteer
    district: str
    role: str
    distance_m: float
    code_number: int


async def _turn(
    session: AsyncSession, code: str, *, districts: Mapping[str, District]
) -> tuple[Turn, Case]:
    ids = column(
        await execute(
            session,
            sql("SELECT id FROM cases WHERE code = :code"),
            {"code": codes.normalised(code)},
        )
    )
    turn = await Turn.take(session, ids, districts=districts)
    if not turn.cases:
        raise Refused(f"There is no case {code}.", missing=True)
    (case,) = turn.cases.values()
    if case.district not in districts:
        raise Refused(why_not(districts, case.district))
    return turn, case


def _still_open(case: Case) -> None:
    if case.state == "closed":
        outcome = (case.outcome or "").replace("_", " ")
        raise Refused(f"Case {case.code} is closed already: {outcome}.")


async def assign(
    session: AsyncSession, code: str, act: Assignment, *, districts: Mapping[str, District]
) -> Case:
    """Give the case to a named volunteer, who is told; whoever was asked or had it is too.

    Only the cases that they have accepted count, against their capacity. Being off duty, duty
    times, rest, drills and what they are asked at the moment do not, as the two have spoken.

    Raises:
        Refused: no such case or volunteer, closed already, or their hands are full.
    """
    turn, case = await _turn(session, code, districts=districts)
    _still_open(case)
    volunteer_id = await _who(session, turn, case, act)
    before = next((o for o in turn.offers_of(case) if o.volunteer.id == volunteer_id), None)
    if before is not None and before.state in HELD:
        raise Refused(f"{before.volunteer.name} has the case already.")
    await turn.hold(session)
    _take_back(turn, case, act)
    await turn.write_offers(session)
    if before is not None and before.state in OPEN:
        if turn.hands_full(before) and not case.drill:
            raise await _full(session, before.volunteer.id, before.volunteer.name)
        offer = before
        offer.respond_by = turn.moment + turn.district(case).policy.arrive_within
    else:
        offer = await _claimed(session, turn, case, act, volunteer_id, before)
    offer.assigned_by = act.by
    await held.forget(session, case)
    transitions.accept(turn, case, offer, who=act.by, why=act.why)
    made = loop.made_offer(turn, case, offer).model_copy(update={"reporter": case.reporter})
    turn.say(OfferAssigned, case, made)
    await turn.write(session)
    return case


async def _who(session: AsyncSession, turn: Turn, case: Case, act: Assignment) -> UUID:
    """Whom the coordinator means, of the district and those that may help."""
    if act.volunteer_id is not None:
        return act.volunteer_id
    allowed = [case.district, *turn.district(case).policy.neighbours]
    try:
        return (await naming.the_one(session, act.volunteer or "", districts=allowed)).id
    except naming.NotOne as error:
        raise Refused(str(error), missing=error.nobody) from error


def _take_back(turn: Turn, case: Case, act: Act) -> None:
    """Whoever has the case has it no longer, and is told."""
    for holder in turn.offers_of(case, *HELD):
        turn.close_offer(holder, "withdrawn", "released")
        turn.log(case, "released", offer=holder.id, who=act.by, why=act.why)


async def _claimed(
    session: AsyncSession,
    turn: Turn,
    case: Case,
    act: Assignment,
    volunteer_id: UUID,
    before: Asked | None,
) -> Asked:
    """An offer to the volunteer that is theirs at once: they were not asked, or it has ended."""
    allowed = [case.district, *turn.district(case).policy.neighbours]
    volunteer = await _named(session, case, volunteer_id, allowed)
    offer = Asked(
        id=before.id if before else uuid7(),
        case_id=case.id,
        volunteer=volunteer.contact,
        home_district=volunteer.district,
        role=volunteer.role,
        answer_code=codes.numbered_code(volunteer.code_number),
        state="accepted",
        distance_m=volunteer.distance_m,
        slot=1,
        made_at=turn.moment,
        respond_by=turn.moment + turn.district(case).policy.arrive_within,
    )
    values = {
        "id": offer.id,
        "case_id": case.id,
        "volunteer_id": volunteer_id,
        "district": case.district,
        "answer_code": offer.answer_code,
        "distance_m": offer.distance_m,
        "reasons": json.dumps({"assigned_by": act.by, "why": act.why}),
        "moment": turn.moment,
        "respond_by": offer.respond_by,
        "drill": case.drill,
    }
    await execute(session, _ASSIGN, values)
    turn.add(offer)
    return offer


# Nobody is asked twice, so there is one offer for a case and a volunteer: given to them after they
# had declined or been silent, it begins anew. Why they were asked then, and until when, is kept.
_ASSIGN = sql("""
    INSERT INTO offers
        (id, case_id, volunteer_id, district, answer_code, state, distance_m, reasons, made_at,
         respond_by, drill)
    VALUES (:id, :case_id, :volunteer_id, :district, :answer_code, 'accepted', :distance_m,
            CAST(CAST(:reasons AS text) AS jsonb), :moment, :respond_by, :drill)
    ON CONFLICT (case_id, volunteer_id) DO UPDATE
    SET answer_code = excluded.answer_code, state = 'accepted', distance_m = excluded.distance_m,
        reasons = jsonb_build_object('asked_until', offers.respond_by) || offers.reasons
                  || excluded.reasons,
        made_at = excluded.made_at, respond_by = excluded.respond_by, ended_at = NULL,
        answered_at = NULL, words = NULL
""")
_NAMED = sql("""
    SELECT v.id, v.district, v.name, v.phone, v.email, v.language, v.channel, v.role,
           v.open_cases >= v.capacity AS full,
           earth_distance(v.home, ll_to_earth(:latitude, :longitude)) AS distance_m,
           nextval('offer_codes') AS code_number
    FROM volunteers v
    WHERE v.id = :id AND v.district = ANY (CAST(:districts AS text[]))
    FOR NO KEY UPDATE OF v
""")
_IN_HAND = sql("""
    SELECT c.code, o.state, v.capacity
    FROM offers o JOIN cases c ON c.id = o.case_id JOIN volunteers v ON v.id = o.volunteer_id
    WHERE o.volunteer_id = :id AND o.state IN ('accepted', 'arrived') AND NOT o.drill
    ORDER BY o.made_at, o.id
""")


async def _full(session: AsyncSession, volunteer_id: UUID, name: str) -> Refused:
    """Why a volunteer cannot be given another case, and what can be done about it."""
    held = await execute(session, _IN_HAND, {"id": volunteer_id})
    theirs = ", ".join(f"{row.code} ({row.state})" for row in held)
    cases = "1 case" if len(held) == 1 else f"{len(held)} cases"
    return Refused(
        f"{name} has accepted {cases}, as many as they take at the same time: {theirs}. Release or "
        f"close one of these, or raise their capacity above {held[0].capacity} "
        f"(PATCH /v1/volunteers/{volunteer_id}), then assign again."
    )


async def _named(
    session: AsyncSession, case: Case, volunteer_id: UUID, districts: list[str]
) -> _Volunteer:
    found = await execute(
        session,
        _NAMED,
        {
            "id": volunteer_id,
            "districts": districts,
            "latitude": case.latitude,
            "longitude": case.longitude,
        },
    )
    if not found:
        raise Refused(
            f"There is no volunteer {volunteer_id} in {' or '.join(districts)}.", missing=True
        )
    (row,) = found
    if row.phone is None and row.email is None:
        raise Refused(f"{row.name} has neither a phone nor an e-mail and cannot be told.")
    if row.full and not case.drill:
        raise await _full(session, volunteer_id, row.name)
    contact = OfferedVolunteer.model_construct(
        id=row.id, name=row.name, phone=row.phone, email=row.email, language=row.language,
        channel=row.channel,
    )  # fmt: skip
    return _Volunteer(contact, row.district, row.role, row.distance_m, row.code_number)


async def release(
    session: AsyncSession, code: str, act: Act, *, districts: Mapping[str, District]
) -> Case:
    """Let the search begin: of a case that was held back; or again, of one that is taken back from
    whoever has it, who is told.

    Raises:
        Refused: no such case, or nobody has it.
    """
    turn, case = await _turn(session, code, districts=districts)
    if not case.held and not turn.offers_of(case, *HELD):
        raise Refused(f"Nobody has case {case.code}: it is {case.state}.")
    await turn.hold(session)
    await held.forget(session, case)
    if case.held:
        held.let_in(turn, case, who=act.by, why=act.why)
    else:
        _take_back(turn, case, act)
        transitions.reopen(turn, case)
    await loop.seek(session, turn)
    await turn.write(session)
    return case


async def close(
    session: AsyncSession, code: str, act: Closing, *, districts: Mapping[str, District]
) -> Case:
    """End the case; whoever was asked or had it is told.

    Raises:
        Refused: no such case, or it is closed already.
    """
    turn, case = await _turn(session, code, districts=districts)
    _still_open(case)
    await turn.hold(session)
    await held.forget(session, case)
    transitions.close(turn, case, act.outcome, who=act.by, why=act.why)
    await turn.write(session)
    return case


async def note(
    session: AsyncSession, code: str, act: Act, *, districts: Mapping[str, District]
) -> Case:
    """Add a line to the case's story.

    Raises:
        Refused: no such case.
    """
    turn, case = await _turn(session, code, districts=districts)
    turn.log(case, "note", who=act.by, why=act.why)
    await turn.write(session)
    return case
