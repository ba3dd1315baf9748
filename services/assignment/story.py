"""The story of a case: what happened, who did it and why; and the same in words.

Read only. What is told here is what :mod:`services.assignment.turn` has logged, with the names and
the reasons of the offers beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment.turn import HELD, STATES
from shared import codes
from shared.database import Row, execute, sql
from shared.districts import District
from shared.events import Place
from shared.words import one_line

OPEN_STATES = tuple(state for state in STATES if state != "closed")


@dataclass(frozen=True)
class Person:
    """A volunteer, as a story names them. Holds personal data."""

    id: UUID
    name: str
    role: str
    phone: str | None
    email: str | None


@dataclass(frozen=True)
class CaseNow:
    """A case as it stands. ``next_action_at``: when the search looks at it again."""

    id: UUID
    code: str
    district: str
    state: str
    category: str
    urgency: str
    people: int
    subdistrict: str
    subdistrict_name: str
    drill: bool
    reported_at: datetime
    changed_at: datetime
    next_action_at: datetime | None
    waiting_for: str | None
    escalated_for: str | None
    outcome: str | None
    closed_at: datetime | None
    held_by: Person | None
    held_since: datetime | None


@dataclass(frozen=True)
class StoryOffer:
    """One volunteer who was asked, or to whom the case was given.

    ``reasons`` tell why them: rank, distance, who was nearer (with names) and why not. ``words``
    are the volunteer's own. Given to somebody who had been asked before, an offer begins anew.
    """

    id: UUID
    volunteer: Person
    answer_code: str
    state: str
    distance_m: float
    reasons: dict[str, Any]
    made_at: datetime
    respond_by: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    words: str | None
    assigned_by: str | None


@dataclass(frozen=True)
class StoryLine:
    """Something that happened: ``what`` is a word of the log, ``who`` a coordinator."""

    at: datetime
    what: str
    who: str | None
    offer_id: UUID | None
    why: str | None


@dataclass(frozen=True)
class StoryAnswer:
    """An answer that changed nothing, and why: its verdict."""

    at: datetime
    answered_at: datetime
    offer_id: UUID
    answer: str
    outcome: str | None
    words: str | None
    channel: str
    verdict: str


@dataclass(frozen=True)
class Story:
    """Everything about one case. Holds personal data."""

    case: CaseNow
    place: Place
    offers: list[StoryOffer]
    log: list[StoryLine]
    answers: list[StoryAnswer]


class UnknownCase(LookupError):
    """There is no case with this code; the text says so."""


# --- reading --------------------------------------------------------------------------------------

_HELD = ", ".join(f"'{state}'" for state in HELD)
_CASES = f"""
    SELECT c.id, c.code, c.district, c.state, c.category, c.urgency, c.people, c.latitude,
           c.longitude, c.approximate, c.subdistrict, c.subdistrict_name, c.village,
           c.village_name, c.centre_latitude, c.centre_longitude, c.drill, c.reported_at,
           c.changed_at, c.next_action_at, c.waiting_for, c.escalated_for, c.outcome, c.closed_at,
           v.id AS holder,
           (SELECT max(l.at) FROM case_log l
            WHERE l.offer_id = o.id AND l.what IN ('accepted', 'assigned')) AS held_since,
           v.name, v.role, v.phone, v.email
    FROM cases c
    LEFT JOIN offers o ON o.case_id = c.id AND o.state IN ({_HELD})
    LEFT JOIN volunteers v ON v.id = o.volunteer_id
"""  # noqa: S608 - our own text, no value in it
_ONE = sql(f"{_CASES} WHERE c.code = :code")
_SOME = f"""
    {_CASES}
    WHERE c.state = ANY (CAST(:states AS text[]))
      AND (CAST(:district AS text) IS NULL OR c.district = :district)
      AND (CAST(:after AS uuid) IS NULL
           OR (c.reported_at, c.id) > (CAST(:after_at AS timestamptz), CAST(:after AS uuid)))
    ORDER BY c.reported_at, c.id
    LIMIT :limit
"""
_ALL = sql(_SOME)
# Said once more and literally: only so can the index on open cases be used.
_STILL_OPEN = sql(_SOME.replace("WHERE c.state", "WHERE c.state <> 'closed' AND c.state"))
_OFFERS = sql("""
    SELECT o.id, o.volunteer_id, o.answer_code, o.state, o.distance_m, o.reasons, o.made_at,
           o.respond_by, o.answered_at, o.ended_at, o.words, o.assigned_by,
           v.name, v.role, v.phone, v.email
    FROM offers o JOIN volunteers v ON v.id = o.volunteer_id
    WHERE o.case_id = :id ORDER BY o.made_at, o.slot, o.id
""")
_LOG = sql("SELECT at, what, who, offer_id, why FROM case_log WHERE case_id = :id ORDER BY id")
_CHANGED_NOTHING = sql("""
    SELECT recorded_at AS at, answered_at, offer_id, answer, outcome, words, channel, verdict
    FROM answers WHERE case_id = :id AND verdict <> 'recorded' ORDER BY recorded_at, event_id
""")


async def listed(
    session: AsyncSession,
    *,
    states: Sequence[str] = OPEN_STATES,
    district: str | None = None,
    limit: int = 100,
    after: str | None = None,
) -> list[CaseNow]:
    """Cases in one of these states, the oldest report first, a page at a time.

    ``after`` is the code of the last case of the page before.

    Raises:
        UnknownCase: there is no case ``after``.
    """
    position = await _position(session, after) if after is not None else None
    rows = await execute(
        session,
        _ALL if "closed" in states else _STILL_OPEN,
        {
            "states": list(states),
            "district": district,
            "limit": limit,
            "after": position.id if position else None,
            "after_at": position.reported_at if position else None,
        },
    )
    return [_case_now(row) for row in rows]


async def _position(session: AsyncSession, code: str) -> Row:
    known = await execute(
        session,
        sql("SELECT id, reported_at FROM cases WHERE code = :code"),
        {"code": codes.normalised(code)},
    )
    if not known:
        raise UnknownCase(f"There is no case {code}.")
    return known[0]


async def story(session: AsyncSession, code: str) -> Story | None:
    """The whole story of the case with this code, as a person typed it; None: there is none."""
    found = await execute(session, _ONE, {"code": codes.normalised(code)})
    if not found:
        return None
    case = found[0]
    offers = await execute(session, _OFFERS, {"id": case.id})
    names = await _names(session, [offer.reasons for offer in offers])
    return Story(
        case=_case_now(case),
        place=Place.model_validate({name: case[name] for name in Place.model_fields}),
        offers=[_offer(row, names) for row in offers],
        log=[StoryLine(**dict(row)) for row in await execute(session, _LOG, {"id": case.id})],
        answers=[
            StoryAnswer(**dict(row))
            for row in await execute(session, _CHANGED_NOTHING, {"id": case.id})
        ],
    )


def _case_now(row: Row) -> CaseNow:
    holder = _person(row, row.holder) if row.holder else None
    own = {name: row[name] for name in CaseNow.__dataclass_fields__ if name != "held_by"}
    return CaseNow(**own, held_by=holder)


def _person(row: Row, id_: UUID) -> Person:
    return Person(id=id_, name=row.name, role=row.role, phone=row.phone, email=row.email)


def _offer(row: Row, names: Mapping[str, str]) -> StoryOffer:
    own = {
        name: row[name]
        for name in StoryOffer.__dataclass_fields__
        if name not in ("volunteer", "reasons")
    }
    nearer = [{**one, "name": names.get(one["volunteer"])} for one in row.reasons.get("nearer", [])]
    reasons = {**row.reasons, "nearer": nearer} if nearer else dict(row.reasons)
    return StoryOffer(**own, volunteer=_person(row, row.volunteer_id), reasons=reasons)


async def _names(session: AsyncSession, reasons: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The names of those who were nearer, by id."""
    ids = {UUID(one["volunteer"]) for some in reasons for one in some.get("nearer", [])}
    if not ids:
        return {}
    rows = await execute(
        session,
        sql("SELECT id, name FROM volunteers WHERE id = ANY (CAST(:ids AS uuid[]))"),
        {"ids": list(ids)},
    )
    return {str(row.id): row.name for row in rows}


# --- in words -------------------------------------------------------------------------------------

REASONS = {
    "too_many_from_one_address": "very many reports came from one address",
    "too_many_for_one_contact": "very many reports name the same contact",
    "too_many_in_the_district": "very many reports came at once",
    "nobody_left_to_ask": "nobody is left to ask",
    "nobody_accepted_in_time": "nobody accepted in time",
    "obstacle": "the volunteer met an obstacle",
    "no_news_after_arrival": "no news since the volunteer arrived",
    "answers_unread": "answers could not be read for some minutes",
    "assigned_unreachable": "the volunteer to whom it was assigned cannot be reached",
}
WAITING_FOR = {
    "no_volunteer_in_reach": "nobody suitable in reach",
    "all_volunteers_busy": "all who could come are busy, off duty or resting",
}
WHY_NOT = {
    "others_rather": "another's turn",
    "taken_by_another_case": "taken by another case",
    "many_offers": "asked for other cases already",
    "busy_for_a_drill": "has something else open",
}
# Why an answer changed nothing.
VERDICTS = {
    "already_recorded": "that was known already",
    "too_late": "too late",
    "taken_by_another": "somebody else had the case by then",
    "case_closed": "the case was closed",
    "hands_full": "they had accepted as many cases as they can take",
    "not_accepted_yet": "they had not accepted",
    "unconfirmed": "they were asked whether it really is done",
    "not_yours": "the offer was made to somebody else",
    "unknown_offer": "there is no such offer",
}


@dataclass(frozen=True)
class Told:
    """A line of the story in words: ``at`` in the district's time, ``gap`` since the line before.

    ``what`` is the word of the log without its outcome, or ``answer``.
    """

    at: datetime
    gap: timedelta
    what: str
    text: str


def lines(story: Story, timezone: str) -> list[str]:
    """The story in words, a line each; times in ``timezone``, a new day named when it begins."""
    told = tell(story, timezone)
    written = [f"{told[0].at:%H.%M.%S}  {told[0].text}"] if told else []
    for before, line in pairwise(told):
        if line.at.date() != before.at.date():
            written.append(day(line.at))
        written.append(f"{line.at:%H.%M.%S}  {line.text}")
    return written


def tell(story: Story, timezone: str) -> list[Told]:
    """The story in words, with the times and gaps beside them."""
    zone = ZoneInfo(timezone)
    found: list[tuple[datetime, str, str]] = []
    for at, one in _in_order(story):
        if isinstance(one, StoryLine):
            found.append((at, one.what.partition(":")[0], _sentence(story, one, zone)))
        else:
            found.append((at, "answer", _without_effect(story, one)))
    starts = [at for at, _, _ in found[:1]] + [at for at, _, _ in found]
    return [
        Told(at.astimezone(zone), at - before, what, text)
        for before, (at, what, text) in zip(starts, found, strict=False)
    ]


def timezone_of(case: CaseNow, districts: Mapping[str, District]) -> str:
    """The district's time zone; UTC where the district has no folder here."""
    district = districts.get(case.district)
    return district.timezone if district else "UTC"


def day(moment: datetime) -> str:
    """A date as one writes it: 1 March 2026."""
    return f"{moment.day} {moment:%B %Y}"


def gap(between: timedelta) -> str:
    """How much later something happened: ``+5 min 2 s``; nothing below a second."""
    seconds = int(between.total_seconds())
    for size, unit, smaller_size, smaller in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            count, rest = divmod(seconds, size)
            rest //= smaller_size
            return f"+{count} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"+{seconds} s" if seconds > 0 else ""


def kilometres(distance_m: float) -> str:
    """A distance in metres as one says it."""
    return f"{distance_m / 1000:.1f} km" if distance_m >= 50 else f"{distance_m:.0f} m"


def plain(word: str) -> str:
    """A word of the code as a person reads it."""
    return word.replace("_", " ")


def _in_order(story: Story) -> list[tuple[datetime, StoryLine | StoryAnswer]]:
    """Log and answers as they happened.

    The log is in the order in which its cases were locked. A moment is the start of a transaction,
    which may have waited for the lock: such a line is told with the moment of the line before.
    """
    found: list[tuple[datetime, StoryLine | StoryAnswer]] = []
    for line in story.log:
        found.append((max(line.at, found[-1][0]) if found else line.at, line))
    found += [(answer.at, answer) for answer in story.answers]
    return sorted(found, key=lambda one: (one[0], isinstance(one[1], StoryAnswer)))


def _sentence(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
    what = line.what.partition(":")[0]
    if what in SENTENCES:
        return SENTENCES[what](story, line, zone)
    # A newer release has logged it: better a bare word than no story.
    return f"{plain(line.what).capitalize()}{_by(line)}{_reason(line)}"


def _offer_of(story: Story, line: StoryLine | StoryAnswer) -> StoryOffer | None:
    return next((offer for offer in story.offers if offer.id == line.offer_id), None)


def _name(story: Story, line: StoryLine | StoryAnswer) -> str:
    offer = _offer_of(story, line)
    return offer.volunteer.name if offer else "somebody"


def _by(line: StoryLine) -> str:
    return f" by {one_line(line.who)}" if line.who else ""


def _reason(line: StoryLine) -> str:
    """A coordinator's reason, or the volunteer's words: those are quoted."""
    if not line.why:
        return ""
    return f": {one_line(line.why)}" if line.who else _quoted(line.why)


def _quoted(words: str | None) -> str:
    return f": '{one_line(words)}'" if words else ""


def _reported(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
    case, where = story.case, story.place
    what = [plain(case.category)]
    what += ["urgent"] if case.urgency == "urgent" else []
    what.append("1 person" if case.people == 1 else f"{case.people} people")
    what += [where.village_name] if where.village_name else []
    approximate = " (approximate)" if where.approximate else ""
    return f"Reported: {', '.join(what)}, {where.subdistrict_name}{approximate}"


def _offered(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
    offer = _offer_of(story, line)
    if offer is None:
        return "Asked somebody"
    asked = [
        f"Asked {offer.volunteer.name} ({offer.volunteer.role})",
        kilometres(offer.reasons.get("distance_m", offer.distance_m)),
        *_why_them(offer.reasons),
    ]
    until = _until(offer, line.at.astimezone(zone), zone)
    nearer = [_not_asked(one) for one in _nearer(story, line, offer)]
    return f"{', '.join(asked)}; until {until}." + (
        f" Nearer, not asked: {', '.join(nearer)}" if nearer else ""
    )


def _why_them(reasons: Mapping[str, Any]) -> list[str]:
    said = []
    if rank := reasons.get("rank"):
        available = " available" if reasons.get("nearer") else ""
        said.append(f"{_ordinal(rank)}nearest{available}")
    if busy := reasons.get("open_cases"):
        said.append("with 1 other case" if busy == 1 else f"with {busy} other cases")
    return said


def _ordinal(rank: int) -> str:
    if rank == 1:
        return ""
    ending = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10)
    return f"{rank}{ending or 'th'} "


def _until(offer: StoryOffer, asked_at: datetime, zone: ZoneInfo) -> str:
    # The case was given to them later: the offer has begun anew.
    first = offer.reasons.get("asked_until")
    until = (datetime.fromisoformat(first) if first else offer.respond_by).astimezone(zone)
    clock = f"{until:%H.%M}"
    return clock if until.date() == asked_at.date() else f"{clock} on {day(until)}"


def _nearer(story: Story, line: StoryLine, offer: StoryOffer) -> list[dict[str, Any]]:
    """Who was nearer and never asked: whoever was asked, before or along with this one, has a line
    of their own."""
    together = {
        str(other.volunteer.id)
        for one in story.log
        if one.what == "offered" and one.at == line.at and (other := _offer_of(story, one))
    }
    return [
        one
        for one in offer.reasons.get("nearer", [])
        if one["why_not"] != "asked_before" and one["volunteer"] not in together
    ]


def _not_asked(one: Mapping[str, Any]) -> str:
    why = WHY_NOT.get(one["why_not"]) or plain(one["why_not"])
    return f"{one['name'] or 'somebody'} {kilometres(one['distance_m'])} ({why})"


def _escalated(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
    reason = line.why or ""
    return f"Escalated to the coordinators: {REASONS.get(reason) or plain(reason)}"


def _held(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
    reason = line.why or ""
    return f"Held back for the duty officer: {REASONS.get(reason) or plain(reason)}"


def _waiting(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
    reason = line.why or ""
    return f"Nobody can be asked now: {WAITING_FOR.get(reason) or plain(reason)}"


def _unreachable(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
    reason = f": {plain(line.why)}" if line.why else ""
    return f"{_name(story, line)} could not be reached{reason}"


def _closed(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
    outcome = plain(line.what.partition(":")[2])
    by = _by(line) or (f" by {_name(story, line)}" if line.offer_id else "")
    return f"Closed as {outcome}{by}{_reason(line)}"


Sentence = Callable[[Story, StoryLine, ZoneInfo], str]


def _says(template: str) -> Sentence:
    """A sentence of who (``{volunteer}``, ``{by}``) and why (``{why}``)."""

    def sentence(story: Story, line: StoryLine, zone: ZoneInfo) -> str:
        return template.format(volunteer=_name(story, line), by=_by(line), why=_reason(line))

    return sentence


# For every word of the log.
SENTENCES: Mapping[str, Sentence] = {
    "reported": _reported,
    "offered": _offered,
    "waiting": _waiting,
    "expired": _says("{volunteer} did not answer"),
    "declined": _says("{volunteer} declined{why}"),
    "unreachable": _unreachable,
    "unsent": _says("{volunteer} was not told in time, so was not asked"),
    "accepted": _says("{volunteer} accepted{why}"),
    "assigned": _says("Assigned to {volunteer}{by}{why}"),
    "withdrawn": _says("{volunteer} need not come any more"),
    "called_off": _says("{volunteer} has their hands full with other cases: need not come"),
    "arrived": _says("{volunteer} arrived{why}"),
    "obstacle": _says("{volunteer} met an obstacle{why}"),
    "handed_back": _says("{volunteer} handed the case back{why}"),
    "lapsed": _says("{volunteer} did not arrive in time: the case is theirs no longer"),
    "escalated": _escalated,
    "held": _held,
    "let_in": _says("Let into the search{by}{why}"),
    "not_looked_at": _says("The duty officer did not look in time: the search begins"),
    "released": _says("Taken back from {volunteer}{by}{why}"),
    "note": _says("Note{by}{why}"),
    "closed": _closed,
}


def _without_effect(story: Story, answer: StoryAnswer) -> str:
    verdict = VERDICTS.get(answer.verdict) or plain(answer.verdict)
    whose = "Somebody else" if answer.verdict == "not_yours" else _name(story, answer)
    said = f"{plain(answer.answer)}{_quoted(answer.words)}"
    return f"{whose[0].upper()}{whose[1:]} answered {said}; nothing changed: {verdict}"
