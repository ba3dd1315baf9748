"""Nothing closes a case on a guess: what an answer does, over histories of answers.

Everything in memory: the rules change a :class:`Turn`, and nothing is written.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assignment import answers
from services.assignment.turn import Asked, Case, Hands, Turn
from services.notification import texts
from services.notification.answers import form_of
from services.notification.incoming.reading import classify
from shared.districts import District, Districts
from shared.events import JudgedAnswer, OfferAnswered, PublicCaseClosed
from tests.factories import DISTRICT, KOBA, NOON, offer_answered, offered_volunteer
from tests.servers import PROJECT

CODES = ("W259A", "K7P2M")


@pytest.fixture(scope="module")
def districts() -> dict[str, District]:
    return dict(Districts([PROJECT / Path("districts")], villages=False))


def a_turn(districts: dict[str, District]) -> Turn:
    """One case for which two volunteers are asked at once."""
    case = Case(
        id=UUID(int=1),
        code="ABCD2345",
        district=DISTRICT,
        category="elderly_abandoned",
        urgency="normal",
        people=1,
        latitude=KOBA[0],
        longitude=KOBA[1],
        approximate=False,
        subdistrict="19.04.01",
        subdistrict_name="Koba",
        village=None,
        village_name=None,
        centre_latitude=KOBA[0],
        centre_longitude=KOBA[1],
        drill=False,
        traceparent=None,
        reported_at=NOON,
        state="offered",
        version=2,
        changed_at=NOON,
    )
    turn = Turn(NOON, districts, {case.id: case})
    for number, code in enumerate(CODES):
        turn.hands[UUID(int=100 + number)] = Hands(open_cases=0, capacity=2)
        turn.add(
            Asked(
                id=UUID(int=10 + number),
                case_id=case.id,
                volunteer=offered_volunteer(id=UUID(int=100 + number)),
                home_district=DISTRICT,
                role="psm",
                answer_code=code,
                state="offered",
                distance_m=100.0,
                slot=number + 1,
                made_at=NOON,
                respond_by=NOON + timedelta(minutes=10),
            )
        )
    return turn


def case_of(turn: Turn) -> Case:
    (case,) = turn.cases.values()
    return case


def said(offer: Asked, answer: str, **values: Any) -> OfferAnswered:
    return offer_answered(
        answer,
        case_id=offer.case_id,
        offer_id=offer.id,
        **{"outcome": None, "form": None, **values},
    )


def written(offer: Asked, text: str) -> OfferAnswered:
    """A text as notification reads it and hands it on."""
    reading = classify(text, codes=[offer.answer_code])
    assert reading.meaning != "ask", text
    form, code_typed = form_of(reading, offer.answer_code)
    return said(
        offer,
        reading.meaning,
        outcome=reading.outcome,
        channel="sms",
        form=form,
        code_typed=code_typed,
    )


ANSWERS = st.fixed_dictionaries(
    {
        "number": st.integers(0, 1),
        "answer": st.sampled_from(
            ["accept", "arrived", "done", "done", "decline", "obstacle", "hand_back"]
        ),
        # None: of a release that does not say how surely, whatever it has read into the words.
        "form": st.sampled_from([None, "words", "plain", "button", "of_a_later_release"]),
        "code_typed": st.sampled_from([None, False, True]),
        "channel": st.sampled_from(["sms", "email", "link", "sandbox"]),
        "outcome": st.sampled_from([None, "resolved", "not_found"]),
    }
)


def may_close(state: str, one: dict[str, Any]) -> bool:
    """The rule, said once more in other words than the code has."""
    if one["answer"] != "done" or state not in ("accepted", "arrived"):
        return False
    pressed = one["form"] == "button" or (one["form"] is None and one["channel"] == "link")
    if pressed:
        return one["outcome"] is not None
    if state == "arrived" and one["outcome"] is not None and one["form"] == "words":
        return True
    return one["form"] == "plain" and (state == "arrived" or one["code_typed"] is True)


@given(history=st.lists(ANSWERS, max_size=12))
def test_a_case_is_closed_only_by_who_has_it_and_says_so_beyond_doubt(
    history: list[dict[str, Any]], districts: dict[str, District]
) -> None:
    turn = a_turn(districts)
    case = case_of(turn)
    for one in history:
        offer = turn.offers[UUID(int=10 + one["number"])]
        before, case_before = offer.state, case.state
        values = {name: value for name, value in one.items() if name not in ("number", "answer")}
        verdict = answers.judge(turn, said(offer, one["answer"], **values))
        if case.state == "closed" and case_before != "closed":
            assert may_close(before, one), (before, one)
            assert verdict == "recorded"
        if may_close(before, one):
            assert case.state == "closed"
        if before == "offered" and one["answer"] in ("arrived", "done"):
            assert (verdict, offer.state) == ("not_accepted_yet", "offered")
        if verdict == "unconfirmed":
            assert one["answer"] == "done"
            assert (offer.state, case.state) == (before, case_before)
    closings = [event for event in turn.events if isinstance(event, PublicCaseClosed)]
    assert len(closings) == (case.state == "closed")


@pytest.mark.parametrize("language", texts.LANGUAGES)
@pytest.mark.parametrize("arrived", [False, True])
@given(history=st.lists(ANSWERS, max_size=6))
def test_who_does_what_our_question_says_gets_through_at_once(
    history: list[dict[str, Any]], language: str, arrived: bool, districts: dict[str, District]
) -> None:
    """Whatever came before: the reply that we ask for closes the case that its writer has."""
    turn = a_turn(districts)
    case, offer = case_of(turn), turn.offers[UUID(int=10)]
    answers.judge(turn, said(offer, "accept"))
    if arrived:
        answers.judge(turn, said(offer, "arrived"))
    for one in history:
        if one["answer"] not in ("decline", "hand_back") and not may_close(offer.state, one):
            values = {key: one[key] for key in ("form", "code_typed", "channel", "outcome")}
            answers.judge(turn, said(offer, one["answer"], **values))
    judged = JudgedAnswer(
        offer_id=offer.id,
        answer_code=offer.answer_code,
        answer="done",
        verdict="unconfirmed",
        volunteer=offered_volunteer(language=language),
    )
    asked_back = texts.reply(judged, link="https://jangkau.dinsos.kabupaten99.go.id/r/x").short_text
    assert f"SELESAI {offer.answer_code}" in asked_back
    verdict = answers.judge(turn, written(offer, f"SELESAI {offer.answer_code}"))
    assert (verdict, case.state, offer.state) == ("recorded", "closed", "done")


@pytest.mark.parametrize(
    "text", ["selesai w259a", "W259A SELESAI", "Selesai. W259A", "selesai pak w259a"]
)
def test_the_order_capitals_and_manners_of_the_reply_do_not_matter(
    text: str, districts: dict[str, District]
) -> None:
    turn = a_turn(districts)
    offer = turn.offers[UUID(int=10)]
    answers.judge(turn, said(offer, "accept"))
    assert answers.judge(turn, written(offer, text)) == "recorded"


@pytest.mark.parametrize("text", ["selesai", "SELESAI", "sudah diantar ke RSUD"])
def test_before_the_arrival_less_than_word_and_code_is_asked_back(
    text: str, districts: dict[str, District]
) -> None:
    turn = a_turn(districts)
    offer = turn.offers[UUID(int=10)]
    answers.judge(turn, said(offer, "accept"))
    assert answers.judge(turn, written(offer, text)) == "unconfirmed"
    assert case_of(turn).state == "accepted"
    answers.judge(turn, written(offer, "tiba"))
    assert answers.judge(turn, written(offer, text)) == "recorded"


def test_the_code_of_another_case_is_no_code_for_this_one() -> None:
    assert form_of(classify("selesai K7P2M", codes=CODES), "W259A") == ("plain", False)
