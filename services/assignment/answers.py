"""What an answer means: accepted, declined, arrived, done, an obstacle, handed back, unreachable.

The first acceptance wins. What comes too late, or from somebody else, changes nothing, is kept, and
is answered with a polite sentence. So is a "yes" of a volunteer who has accepted as many cases as
they can take, for whom the next one is asked, and what may not have been meant: nobody has accepted
who has not said so, and nothing closes a case on a guess (docs/adr/0019).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import leave, loop, reach, transitions
from services.assignment.turn import HELD, OPEN, UNREACHABLE_PAUSE, Asked, Case, Turn
from shared.database import execute, sql
from shared.districts import District, why_not
from shared.events import (
    NOT_SENT,
    AnswerJudged,
    GivenAnswer,
    JudgedAnswer,
    OfferAnswered,
    OfferedVolunteer,
    OfferUnreachable,
    Reporter,
)

# Notification's word for an offer that it could not try before its deadline.
NOT_SENT_IN_TIME = "not_sent_in_time"

Heard = OfferAnswered | OfferUnreachable | reach.Sign | leave.OnDuty


async def take_answers(
    session: AsyncSession,
    heard: Sequence[Heard],
    *,
    districts: Mapping[str, District],
    duty_link: leave.DutyLink = lambda _: None,
) -> None:
    """Handle answers in the order in which they came; each to an offer gets a sentence back.

    ``duty_link`` makes the address of a volunteer's duty page.
    """
    of_offers = [event for event in heard if isinstance(event, OfferAnswered | OfferUnreachable)]
    on_duty = [event for event in heard if isinstance(event, leave.OnDuty)]
    signs = [event for event in heard if isinstance(event, reach.Sign)]
    who = await leave.writers(session, on_duty)
    cases = {event.subject for event in of_offers}.union(await leave.open_cases(session, who))
    turn = await Turn.take(session, cases, districts=districts)
    for case in turn.cases.values():
        if case.district not in districts:
            raise loop.UnknownDistrict(why_not(districts, case.district))
    # Before any volunteer is locked, and at once with those whom the cases concern: what their
    # volunteers have in hand decides.
    homes = {row.district for rows in who.values() for row in rows}
    if signs:
        homes.update(await reach.districts_of(session, signs))
    if turn.cases or homes:
        await turn.hold(session, also=homes)
    answered: list[dict[str, Any]] = []
    for event in of_offers:
        if isinstance(event, OfferUnreachable):
            unreachable(turn, event)
        else:
            asked = turn.offers.get(event.data.offer_id)
            was_open = asked is not None and asked.state in OPEN
            verdict = judge(turn, event)
            answered.append(_answer_row(event, verdict))
            _judged(turn, event, verdict, was_open=was_open)
    if answered:
        await execute(session, _RECORD, {"answers": json.dumps(answered)})
    await leave.begin(session, turn, on_duty, who, districts=districts)
    await loop.seek(session, turn)
    await turn.write(session)
    await reach.take(session, signs, districts=districts)
    await leave.answer(
        session, on_duty, who, moment=turn.moment, districts=districts, link=duty_link
    )


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
        case "accept" if turn.hands_full(offer):
            turn.end(offer, "called_off", words=answer.words)
            turn.log(case, "called_off", offer=offer.id)
            turn.seeking.add(case.id)
            return "hands_full"
        case "accept":
            transitions.accept(turn, case, offer, words=answer.words)
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
            transitions.arrive(turn, case, offer, words=answer.words)
        case "done" if not ends_the_case(offer.state, answer):
            return "unconfirmed"
        case "done":
            turn.end(offer, "done", rest=turn.rest_after(offer), words=answer.words)
            outcome = answer.outcome or "resolved"
            transitions.close(turn, case, outcome, offer=offer, why=answer.words)
        case "obstacle":
            if case.escalated_for == "obstacle" and answer.words in (None, offer.words):
                return "already_recorded"  # nothing that the coordinator does not know
            turn.change(offer, offer.state, words=answer.words)
            turn.log(case, "obstacle", offer=offer.id, why=answer.words)
            turn.escalate(case, "obstacle", words=answer.words)
        case "decline" | "hand_back":
            turn.end(offer, "handed_back", words=answer.words)
            turn.log(case, "handed_back", offer=offer.id, why=answer.words)
            transitions.reopen(turn, case)
    return "recorded"


def ends_the_case(state: str, answer: GivenAnswer) -> bool:
    """Whether a "done" from whoever has the case (``state`` accepted or arrived) is beyond doubt.

    A button with its outcome is. Of a text: after the arrival the plain word, or words that state
    an outcome; before it, only word and code, which is what our question asks for. What an older
    release hands over does not say how surely it was said: then only its page counts, which never
    sent a done without an outcome.
    """
    if answer.form == "button" or (answer.form is None and answer.channel == "link"):
        return answer.outcome is not None
    if answer.form == "plain":
        return state == "arrived" or answer.code_typed is True
    return answer.form == "words" and state == "arrived" and answer.outcome is not None


def unreachable(turn: Turn, event: OfferUnreachable) -> None:
    """No channel has brought the offer to its volunteer: the next one is asked at once.

    What was not even tried before its deadline (notification was away) was never asked: they may be
    asked later. Whom a coordinator has named and nobody can reach, the coordinator has to hear of.
    """
    case, offer = turn.cases.get(event.subject), turn.offers.get(event.data.offer_id)
    if case is None or offer is None:
        return
    never_asked = event.data.reason == NOT_SENT_IN_TIME
    if offer.state in OPEN:
        # A budget that is spent says nothing about the volunteer; but asked again for this case
        # they would only be refused again.
        pause = timedelta(0) if event.data.reason in NOT_SENT else UNREACHABLE_PAUSE
        turn.end(offer, "unsent" if never_asked else "unreachable", rest=pause)
    elif offer.state == "expired" and never_asked:
        turn.rename(offer, "unsent")
    elif offer.state == "accepted" and offer.assigned_by and not never_asked:
        turn.end(offer, "unreachable", rest=UNREACHABLE_PAUSE)
        transitions.reopen(turn, case)
        turn.escalate(case, "assigned_unreachable")
    else:
        return
    turn.log(
        case, "unsent" if never_asked else "unreachable", offer=offer.id, why=event.data.reason
    )
    if case.state not in (*HELD, "closed"):
        turn.seeking.add(case.id)


def _judged(turn: Turn, event: OfferAnswered, verdict: str, *, was_open: bool) -> None:
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
        reporter=_reporter(turn, event, verdict, was_open=was_open),
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


def _reporter(turn: Turn, event: OfferAnswered, verdict: str, *, was_open: bool) -> Reporter | None:
    """Who reported the case, for whoever has it: with the answer by which they got it, and when
    they say again what is known. Never for anybody else."""
    case, offer = turn.cases.get(event.subject), turn.offers.get(event.data.offer_id)
    if case is None or offer is None or offer.case_id != case.id or offer.state not in HELD:
        return None
    got_it = verdict == "recorded" and was_open
    if not (got_it or verdict == "already_recorded") or not _goes_to(event.data, offer.volunteer):
        return None
    return case.reporter


def _goes_to(answer: GivenAnswer, volunteer: OfferedVolunteer) -> bool:
    """Whether the sentence back reaches this volunteer only: an address that is theirs no longer
    may be anybody's by now."""
    return answer.phone in (None, volunteer.phone) and (
        answer.email is None
        or (volunteer.email is not None and answer.email.lower() == volunteer.email.lower())
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
    SELECT event_id, offer_id, case_id, answer, outcome, words, channel, verdict, answered_at
    FROM jsonb_to_recordset(CAST(:answers AS jsonb)) AS a
        (event_id uuid, offer_id uuid, case_id uuid, answer text, outcome text, words text,
         channel text, verdict text, answered_at timestamptz)
    ON CONFLICT DO NOTHING
""")
