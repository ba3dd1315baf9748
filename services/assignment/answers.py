"""What an answer means: accepted, declined, arrived, done, an obstacle, handed back, unreachable.

The first acceptance wins. What comes too late, or from somebody else, changes nothing, is kept, and
is answered with a polite sentence.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import offers
from services.assignment.models import Case
from services.assignment.turn import HELD, OPEN, Asked, Turn
from shared.database import execute, sql
from shared.districts import District
from shared.events import (
    AnswerJudged,
    GivenAnswer,
    JudgedAnswer,
    OfferAnswered,
    OfferUnreachable,
    PublicCaseAccepted,
    PublicCaseArrived,
    PublicCaseClosed,
)

log = structlog.get_logger("answers")

Heard = OfferAnswered | OfferUnreachable


async def take_answers(
    session: AsyncSession, heard: Sequence[Heard], *, districts: Mapping[str, District]
) -> None:
    """Handle answers in the order in which they came; each gets a sentence back."""
    turn = await Turn.take(session, {event.subject for event in heard}, districts=districts)
    answered: list[dict[str, Any]] = []
    for event in heard:
        if isinstance(event, OfferUnreachable):
            unreachable(turn, event)
        else:
            verdict = judge(turn, event)
            answered.append(_answer_row(event, verdict))
            _judged(turn, event, verdict)
    if answered:
        await execute(session, _RECORD, {"answers": json.dumps(answered)})
    await offers.seek(session, turn)
    await turn.write(session)


def judge(turn: Turn, event: OfferAnswered) -> str:
    """Let an answer take effect if it can; returns the verdict, a word of `answer.judged`."""
    answer = event.data
    case, offer = turn.cases.get(event.subject), turn.offers.get(answer.offer_id)
    if case is None or offer is None or offer.case_id != case.id:
        return "unknown_offer"
    if answer.volunteer_id is not None and answer.volunteer_id != offer.volunteer.id:
        return "not_yours"
    turn.heard_from(offer.volunteer.id)
    if offer.state in OPEN:
        return _to_an_open_offer(turn, case, offer, answer)
    if offer.state in HELD:
        return _from_the_holder(turn, case, offer, answer)
    if (answer.answer, offer.state) in _SAID_BEFORE:
        return "already_recorded"
    if case.state == "closed":
        return "case_closed"
    if turn.offers_of(case, *HELD):
        return "taken_by_another"
    return "too_late"


_SAID_BEFORE = {("decline", "declined"), ("hand_back", "handed_back"), ("done", "done")}


def _to_an_open_offer(turn: Turn, case: Case, offer: Asked, answer: GivenAnswer) -> str:
    match answer.answer:
        case "accept" | "arrived":
            accept(turn, case, offer, words=answer.words)
            if answer.answer == "arrived":  # whoever is there has accepted
                arrive(turn, case, offer)
        case "decline" | "hand_back":
            turn.end(offer, "declined", words=answer.words)
            turn.log(case, "declined", offer=offer.id, why=answer.words)
            turn.seeking.add(case.id)
        case _:
            return "not_accepted_yet"
    return "recorded"


def _from_the_holder(turn: Turn, case: Case, offer: Asked, answer: GivenAnswer) -> str:
    match answer.answer:
        case "accept":
            return "already_recorded"
        case "arrived" if offer.state == "arrived":
            return "already_recorded"
        case "arrived":
            arrive(turn, case, offer, words=answer.words)
        case "done":
            turn.end(offer, "done", rest=True, words=answer.words)
            close(turn, case, answer.outcome or "resolved", offer=offer, why=answer.words)
        case "obstacle":
            turn.change(offer, offer.state, words=answer.words)
            turn.log(case, "obstacle", offer=offer.id, why=answer.words)
            turn.escalate(case, "obstacle", words=answer.words)
        case "decline" | "hand_back":
            turn.end(offer, "handed_back", words=answer.words)
            turn.log(case, "handed_back", offer=offer.id, why=answer.words)
            offers.reopen(turn, case)
    return "recorded"


def accept(
    turn: Turn,
    case: Case,
    offer: Asked,
    *,
    words: str | None = None,
    who: str | None = None,
    why: str | None = None,
) -> None:
    """The case is theirs; everybody else's offer ends at once.

    ``words`` are the volunteer's own; ``who`` is the coordinator who gave it to them, and ``why``.
    """
    policy = turn.district(case).policy
    turn.change(offer, "accepted", words=words)
    turn.log(case, "assigned" if who else "accepted", offer=offer.id, who=who, why=why or words)
    for other in turn.offers_of(case, *OPEN):
        turn.close_offer(other, "withdrawn", "taken_by_another")
        turn.log(case, "withdrawn", offer=other.id)
    case.state, case.waiting_for = "accepted", None
    case.escalated_at = case.escalated_for = None
    case.next_action_at = turn.moment + policy.arrive_within
    turn.seeking.discard(case.id)
    turn.tell(case, PublicCaseAccepted)


def arrive(turn: Turn, case: Case, offer: Asked, *, words: str | None = None) -> None:
    """They are with the person."""
    policy = turn.district(case).policy
    turn.change(offer, "arrived", words=words)
    turn.log(case, "arrived", offer=offer.id, why=words)
    case.state = "arrived"
    case.next_action_at = turn.moment + policy.report_within
    turn.tell(case, PublicCaseArrived)


def close(
    turn: Turn,
    case: Case,
    outcome: str,
    *,
    offer: Asked | None = None,
    who: str | None = None,
    why: str | None = None,
) -> None:
    """The case has ended; whoever is still asked or has it is told."""
    for other in turn.offers_of(case, *OPEN, *HELD):
        turn.close_offer(other, "withdrawn", "case_closed")
        turn.log(case, "withdrawn", offer=other.id)
    case.state, case.outcome, case.closed_at = "closed", outcome, turn.moment
    case.waiting_for = case.next_action_at = case.escalated_at = case.escalated_for = None
    turn.seeking.discard(case.id)
    turn.log(case, f"closed:{outcome}", offer=offer.id if offer else None, who=who, why=why)
    turn.tell(case, PublicCaseClosed)


def unreachable(turn: Turn, event: OfferUnreachable) -> None:
    """No channel has brought the offer to its volunteer: the next one is asked at once."""
    case, offer = turn.cases.get(event.subject), turn.offers.get(event.data.offer_id)
    if case is None or offer is None or offer.state not in OPEN:
        return
    turn.end(offer, "unreachable")
    turn.log(case, "unreachable", offer=offer.id, why=event.data.reason)
    turn.seeking.add(case.id)


def _judged(turn: Turn, event: OfferAnswered, verdict: str) -> None:
    offer = turn.offers.get(event.data.offer_id)
    theirs = offer is not None and verdict not in ("unknown_offer", "not_yours")
    data = JudgedAnswer(
        offer_id=event.data.offer_id,
        answer_code=offer.answer_code if offer and theirs else None,
        answer=event.data.answer,
        verdict=verdict,
        volunteer=offer.volunteer if offer and theirs else None,
        phone=event.data.phone,
        email=event.data.email,
    )
    turn.events.append(
        AnswerJudged.of(
            data,
            case_id=event.subject,
            district=event.district,
            time=turn.moment,
            drill=event.drill,
            traceparent=event.traceparent,
        )
    )


def _answer_row(event: OfferAnswered, verdict: str) -> dict[str, Any]:
    return {
        "event_id": str(event.id),
        "case_id": str(event.subject),
        "verdict": verdict,
        "answered_at": event.time.isoformat(),
        **event.data.model_dump(
            mode="json", include={"offer_id", "answer", "outcome", "words", "channel"}
        ),
    }


_RECORD = sql("""
    INSERT INTO answers
        (event_id, offer_id, case_id, answer, outcome, words, channel, verdict, answered_at)
    SELECT * FROM jsonb_to_recordset(CAST(:answers AS jsonb)) AS a
        (event_id uuid, offer_id uuid, case_id uuid, answer text, outcome text, words text,
         channel text, verdict text, answered_at timestamptz)
    ON CONFLICT DO NOTHING
""")
