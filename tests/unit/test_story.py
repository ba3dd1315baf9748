"""The story of a case in words: every word of the log has its sentence."""

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from services.assignment import story
from services.assignment.story import CaseNow, Person, Story, StoryAnswer, StoryLine, StoryOffer
from shared.events import JudgedAnswer, Outcome, PublicCase
from tests.factories import place

ASSIGNMENT = Path(__file__).parents[2] / "services" / "assignment"
MODULES = ("turn", "loop", "transitions", "answers", "coordination")
JAKARTA = "Asia/Jakarta"
NOON = datetime(2026, 3, 1, 5, 3, 7, tzinfo=UTC)  # 12.03.07 in Jakarta
MINUTE = timedelta(minutes=1)

SITI = Person(uuid7(), "Siti Astuti", "psm", "+6281234567890", None)
BAMBANG = Person(uuid7(), "Bambang Permana", "tksk", "+6281234567891", None)


def case(**values: Any) -> CaseNow:
    plain: dict[str, Any] = {
        "id": uuid7(),
        "code": "HGC5T9ZW",
        "district": "19.04",
        "state": "offered",
        "category": "elderly_abandoned",
        "urgency": "urgent",
        "people": 1,
        "subdistrict": "19.04.01",
        "subdistrict_name": "Koba",
        "drill": False,
        "reported_at": NOON,
        "changed_at": NOON,
        "next_action_at": None,
        "waiting_for": None,
        "escalated_for": None,
        "outcome": None,
        "closed_at": None,
        "held_by": None,
        "held_since": None,
    }
    return CaseNow(**plain | values)


def offer(volunteer: Person = SITI, **values: Any) -> StoryOffer:
    plain: dict[str, Any] = {
        "id": uuid7(),
        "volunteer": volunteer,
        "answer_code": "K7P2M",
        "state": "offered",
        "distance_m": 1234.0,
        "reasons": {"distance_m": 1234.0, "rank": 1, "open_cases": 0},
        "made_at": NOON,
        "respond_by": NOON + 5 * MINUTE,
        "answered_at": None,
        "ended_at": None,
        "words": None,
        "assigned_by": None,
    }
    return StoryOffer(**plain | values)


def line(what: str, *, offer: StoryOffer | None = None, **values: Any) -> StoryLine:
    return StoryLine(
        **{"at": NOON, "who": None, "why": None, **values},
        what=what,
        offer_id=offer.id if offer else None,
    )


def answer(given: str, verdict: str, offer_id: UUID, **values: Any) -> StoryAnswer:
    plain: dict[str, Any] = {
        "at": NOON,
        "answered_at": NOON,
        "outcome": None,
        "words": None,
        "channel": "sms",
    }
    return StoryAnswer(**plain | values, answer=given, verdict=verdict, offer_id=offer_id)


def told(
    *log: StoryLine,
    offers: tuple[StoryOffer, ...] = (),
    answers: tuple[StoryAnswer, ...] = (),
    case_values: dict[str, Any] | None = None,
    **place_values: Any,
) -> list[str]:
    """The story in words."""
    whole = Story(
        case(**case_values or {}), place(**place_values), list(offers), list(log), list(answers)
    )
    return story.lines(whole, JAKARTA)


def sentence(what: str, **values: Any) -> str:
    """What one line about Siti's offer says, without its time."""
    made = offer()
    (written,) = told(line(what, offer=made, **values), offers=(made,))
    return written.partition("  ")[2]


# --- every word -----------------------------------------------------------------------------------


def words_in(expression: ast.expr) -> set[str]:
    """The words that the second argument of a `log(case, …)` can be."""
    match expression:
        case ast.Constant(value=str(word)):
            return {word}
        case ast.IfExp(body=one, orelse=other):
            return words_in(one) | words_in(other)
        case ast.JoinedStr(values=[ast.Constant(value="closed:"), ast.FormattedValue()]):
            return {f"closed:{outcome}" for outcome in (*get_args(Outcome), "merged")}
    raise AssertionError(f"This test does not understand {ast.unparse(expression)}")


def logged_words() -> set[str]:
    """All words that anybody logs."""
    return {
        word
        for module in MODULES
        for node in ast.walk(ast.parse((ASSIGNMENT / f"{module}.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "log"
        for word in words_in(node.args[1])
    }


def test_the_test_finds_the_words() -> None:
    assert {"reported", "offered", "accepted", "assigned", "note", "closed:resolved"} <= (
        logged_words()
    )


@pytest.mark.parametrize("word", sorted(logged_words()))
def test_every_word_of_the_log_has_its_sentence(word: str) -> None:
    assert word.partition(":")[0] in story.SENTENCES
    written = sentence(word, who="Bu Rina", why="nobody_left_to_ask")
    assert "_" not in written.replace("nobody_left_to_ask", "")
    assert "somebody" not in written


@pytest.mark.parametrize(
    ("contract", "field", "words"),
    [
        (PublicCase, "escalated_for", story.REASONS),
        (PublicCase, "waiting_for", story.WAITING_FOR),
    ],
)
def test_every_reason_has_its_words(contract: Any, field: str, words: dict[str, str]) -> None:
    assert set(contract.model_fields[field].json_schema_extra["enum"]) == set(words)


def test_every_verdict_has_its_words() -> None:
    extra: Any = JudgedAnswer.model_fields["verdict"].json_schema_extra
    assert set(extra["enum"]) - {"recorded"} == set(story.VERDICTS)


def test_a_word_of_a_newer_release_is_told_as_it_is() -> None:
    assert sentence("handed_over", who="Bu Rina", why="to 19.71") == (
        "Handed over by Bu Rina: to 19.71"
    )


@pytest.mark.parametrize(
    ("what", "values", "written"),
    [
        ("expired", {}, "Siti Astuti did not answer"),
        ("declined", {}, "Siti Astuti declined"),
        (
            "declined",
            {"why": "sedang di\nluar kota"},
            "Siti Astuti declined: 'sedang di luar kota'",
        ),
        (
            "unreachable",
            {"why": "no_channel_left"},
            "Siti Astuti could not be reached: no channel left",
        ),
        ("accepted", {"why": "siap {otw}"}, "Siti Astuti accepted: 'siap {otw}'"),
        (
            "assigned",
            {"who": "Bu Rina", "why": "knows the family"},
            "Assigned to Siti Astuti by Bu Rina: knows the family",
        ),
        ("withdrawn", {}, "Siti Astuti need not come any more"),
        ("arrived", {}, "Siti Astuti arrived"),
        ("obstacle", {"why": "jembatan putus"}, "Siti Astuti met an obstacle: 'jembatan putus'"),
        ("handed_back", {"why": "anak sakit"}, "Siti Astuti handed the case back: 'anak sakit'"),
        ("lapsed", {}, "Siti Astuti did not arrive in time: the case is theirs no longer"),
        (
            "escalated",
            {"why": "nobody_accepted_in_time"},
            "Escalated to the coordinators: nobody accepted in time",
        ),
        (
            "released",
            {"who": "Bu Rina", "why": "ill"},
            "Taken back from Siti Astuti by Bu Rina: ill",
        ),
        (
            "closed:not_found",
            {"who": "Bu Rina", "why": "gone"},
            "Closed as not found by Bu Rina: gone",
        ),
        (
            "closed:resolved",
            {"why": "sudah pulang"},
            "Closed as resolved by Siti Astuti: 'sudah pulang'",
        ),
        ("note", {"who": "Bu Rina", "why": "call the police"}, "Note by Bu Rina: call the police"),
        (
            "waiting",
            {"why": "no_volunteer_in_reach"},
            "Nobody can be asked now: nobody suitable in reach",
        ),
    ],
)
def test_what_is_said(what: str, values: dict[str, Any], written: str) -> None:
    assert sentence(what, **values) == written


# --- the report, and who was asked ----------------------------------------------------------------


def test_the_report_is_told_with_need_and_place() -> None:
    (written,) = told(line("reported"), approximate=True)
    assert written == "12.03.07  Reported: elderly abandoned, urgent, 1 person, Koba (approximate)"
    (written,) = told(
        line("reported"),
        case_values={"urgency": "normal", "people": 3},
        village="19.04.01.1002",
        village_name="Berok",
    )
    assert written == "12.03.07  Reported: elderly abandoned, 3 people, Berok, Koba"


def test_who_was_asked_is_told_with_distance_reason_deadline_and_who_was_nearer() -> None:
    nearer = [
        {
            "volunteer": str(BAMBANG.id),
            "name": BAMBANG.name,
            "distance_m": 400,
            "why_not": "off_duty",
        },
        {"volunteer": str(uuid7()), "name": None, "distance_m": 30, "why_not": "full"},
        {"volunteer": str(uuid7()), "name": "X", "distance_m": 90, "why_not": "asked_before"},
    ]
    made = offer(reasons={"distance_m": 1234.0, "rank": 1, "open_cases": 1, "nearer": nearer})
    assert told(line("offered", offer=made), offers=(made,)) == [
        "12.03.07  Asked Siti Astuti (psm), 1.2 km, nearest available, with 1 other case; "
        "until 12.08. Nearer, not asked: Bambang Permana 0.4 km (off duty), "
        "somebody 30 m (full)"
    ]


def test_who_was_asked_in_the_same_moment_was_not_passed_over() -> None:
    near = offer(BAMBANG)
    nearer = {
        "volunteer": str(BAMBANG.id),
        "name": BAMBANG.name,
        "distance_m": 400,
        "why_not": "others_rather",
    }
    far = offer(reasons={"rank": 2, "nearer": [nearer]})
    _, written = told(line("offered", offer=near), line("offered", offer=far), offers=(near, far))
    assert (
        written == "12.03.07  Asked Siti Astuti (psm), 1.2 km, 2nd nearest available; until 12.08."
    )


@pytest.mark.parametrize(
    ("rank", "words"),
    [(1, "nearest"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")],
)
def test_the_rank_is_written_as_one_says_it(rank: int, words: str) -> None:
    made = offer(reasons={"rank": rank})
    (written,) = told(line("offered", offer=made), offers=(made,))
    assert f", {words}" in written


def test_until_when_they_were_asked_is_kept_when_the_case_is_given_to_them_later() -> None:
    given = offer(
        assigned_by="Bu Rina",
        respond_by=NOON + 90 * MINUTE,
        reasons={"asked_until": (NOON + 5 * MINUTE).isoformat(), "rank": 1},
    )
    (written,) = told(line("offered", offer=given), offers=(given,))
    assert "until 12.08." in written


def test_a_deadline_of_another_day_names_it() -> None:
    made = offer(respond_by=NOON + timedelta(hours=14))
    (written,) = told(line("offered", offer=made), offers=(made,))
    assert "until 02.03 on 2 March 2026." in written


# --- times, and answers ---------------------------------------------------------------------------


def test_a_new_day_is_named_when_it_begins() -> None:
    assert told(
        line("reported"),
        line("note", at=NOON + timedelta(hours=13), who="Bu Rina", why="still there"),
    )[1:] == ["2 March 2026", "01.03.07  Note by Bu Rina: still there"]


def test_answers_that_changed_nothing_stand_where_they_came() -> None:
    made = offer()
    later = NOON + 6 * MINUTE
    assert told(
        line("expired", offer=made, at=NOON + 5 * MINUTE),
        line("note", at=later, who="Bu Rina", why="rang them"),
        line("escalated", at=later + MINUTE, why="nobody_left_to_ask"),
        offers=(made,),
        answers=(
            answer("accept", "too_late", made.id, at=later, words="siap"),
            answer("accept", "not_yours", made.id, at=later),
            answer("hand_back", "unknown_offer", uuid7(), at=later + 2 * MINUTE),
        ),
    ) == [
        "12.08.07  Siti Astuti did not answer",
        "12.09.07  Note by Bu Rina: rang them",
        "12.09.07  Siti Astuti answered accept: 'siap'; nothing changed: too late",
        "12.09.07  Somebody else answered accept; nothing changed: the offer was made to somebody "
        "else",
        "12.10.07  Escalated to the coordinators: nobody is left to ask",
        "12.11.07  Somebody answered hand back; nothing changed: there is no such offer",
    ]


def test_the_log_keeps_its_order_although_a_transaction_began_earlier() -> None:
    first = line("note", who="Bu Rina", why="first", at=NOON + timedelta(milliseconds=5))
    second = line("note", who="Bu Rina", why="second", at=NOON)
    whole = Story(case(), place(), [], [first, second], [])
    written = story.tell(whole, JAKARTA)
    assert [one.text for one in written] == ["Note by Bu Rina: first", "Note by Bu Rina: second"]
    assert [one.gap for one in written] == [timedelta(0), timedelta(0)]


def test_a_case_without_a_log_has_no_lines() -> None:
    assert told() == []


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (timedelta(milliseconds=900), ""),
        (timedelta(seconds=59), "+59 s"),
        (timedelta(minutes=5, seconds=2), "+5 min 2 s"),
        (timedelta(minutes=5), "+5 min"),
        (timedelta(hours=2, minutes=1, seconds=5), "+2 h 1 min"),
        (timedelta(days=3, hours=4), "+3 d 4 h"),
    ],
)
def test_a_gap_is_written_as_one_says_it(between: timedelta, words: str) -> None:
    assert story.gap(between) == words
