"""What a message says: templates and words by language, and what fits into one SMS segment.

``templates/`` has one file per purpose, channel and language; the short words and sentences of a
language stand in its ``words`` file, and the purposes that are one sentence share ``note``. An
installation lays its own files over ours (:func:`use`); :func:`check` finds what is broken in them.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from services.notification.gsm import GSM_BASIC as GSM_BASIC
from services.notification.gsm import GSM_EXTENDED as GSM_EXTENDED
from services.notification.gsm import SEGMENT_SEPTETS as SEGMENT_SEPTETS
from services.notification.gsm import gsm, is_gsm, septets
from services.notification.gsm import segments as segments
from shared.events import (
    AnsweredDuty,
    AskedVolunteer,
    ClosedOffer,
    Coordinator,
    EscalatedCase,
    HeldCases,
    JudgedAnswer,
    MadeOffer,
    Place,
    Reporter,
)
from shared.settings import CannotStart
from shared.words import one_line

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("id", "en")

# A place that is cut shorter than this helps nobody: rather do without more of the template.
SHORTEST_PLACE = 16
# How far a template can leave things out: 0 says all in full, each step less. The last step also
# goes at what is said but can be said shorter, and is taken only to save the place.
TIGHTEST = 4
# From here on a place is said without "Kec.".
BARE_PLACE = 2

# Names of Indonesia's three time zones by their offset in minutes.
ZONES = {420: "WIB", 480: "WITA", 540: "WIT"}

# Escalations behind which volunteers are still being looked for.
STILL_SEARCHING = ("nobody_accepted_in_time",)

# Verdicts behind which the volunteer has something to say again.
ASKED_BACK = ("unconfirmed", "not_accepted_yet")

# Of a sender's address so much is shown in an SMS, in characters.
LONGEST_SENDER = 40

# Of the cases that somebody keeps, so many are named in one SMS.
NAMED_CASES = 3

# Questions whose sentences have one code in them to answer with.
NAMES_ONE_CODE = ("ambiguous", "not_understood", "empty")

Values = Mapping[str, Any]

_FIELD = re.compile(r"\{(\w+)\}")


class BrokenTexts(CannotStart):
    """A text that cannot be written as it should be; the sentence names file and field."""


@dataclass(frozen=True)
class Texts:
    """One message in the forms that channels need."""

    short_text: str
    subject: str
    long_text: str


# --- an installation's own texts ---------------------------------------------------------------

_own: list[Path] = []


def use(folder: str | Path | None) -> None:
    """Lay an installation's own files over ours, by name; None goes back to ours alone.

    A template replaces ours whole; of a ``words`` file only what it says is replaced.

    Raises:
        BrokenTexts: there is no such folder.
    """
    own = Path(folder) if folder else None
    if own is not None and not own.is_dir():
        raise BrokenTexts(f"JANGKAU_TEXTS: there is no folder {own}.")
    _own[:] = [own] if own else []
    templates.cache_clear()
    _words.cache_clear()


def own_folder() -> Path | None:
    """Where an installation's own texts are, if it has any."""
    return _own[0] if _own else None


def check() -> None:
    """Write every text of every purpose and language once, with the longest that may stand in it.

    Raises:
        BrokenTexts: one cannot be written, does not fit, or lacks what it has to say.
    """
    from services.notification import text_check

    text_check.check()


@cache
def templates() -> Environment:
    """The templates, the installation's own before ours."""
    return Environment(
        loader=ChoiceLoader(
            [FileSystemLoader(folder, encoding="utf-8-sig") for folder in (*_own, TEMPLATES)]
        ),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - plain text for telephones and mailboxes, never HTML
        trim_blocks=False,
    )


def words_of(language: str) -> Mapping[str, Any]:
    """The words of a language; Indonesian stands in for one that there is not."""
    return _words(language if language in LANGUAGES else LANGUAGES[0])


@cache
def _words(language: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for folder in (TEMPLATES, *_own):
        file = folder / f"words.{language}.toml"
        if file.exists():
            found = laid_over(found, tomllib.loads(file.read_text(encoding="utf-8-sig")))
    return {**found, "language": language}


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The one table with the other's entries in place of its own."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = (
            laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return result


def _word(table: Mapping[str, Any], word: str) -> Any:
    """What a word of an event means, or what stands for one that this version does not know."""
    return table.get(word, table["other"])


# --- to volunteers -----------------------------------------------------------------------------


def offer(made: MadeOffer, *, link: str | None = None, drill: bool = False) -> Texts:
    """The texts that ask a volunteer to come.

    The SMS is one segment. It ends with the link, where telephones make it clickable.
    """
    return _about_a_place("offer", made.place, _offered(made, link, drill))


def assigned(made: MadeOffer, *, link: str | None = None, drill: bool = False) -> Texts:
    """The texts that tell a volunteer that a coordinator has given them this case."""
    return _about_a_place("assigned", made.place, _offered(made, link, drill))


def _offered(made: MadeOffer, link: str | None, drill: bool) -> dict[str, Any]:
    words = words_of(made.volunteer.language)
    return {
        "words": words,
        "code": made.answer_code,
        "what": _word(words["categories"], made.category),
        "brief": _word(words["brief_categories"], made.category),
        "urgent": made.urgency == "urgent",
        "people": made.people,
        "distance": distance(made.distance_m, words["decimal"], approximate=made.place.approximate),
        "until": clock(made.respond_by, made.utc_offset_minutes, words["clock"]),
        # Without the zone: a volunteer knows their own.
        "time": clock(made.respond_by, made.utc_offset_minutes, words["clock"], zone=False),
        "name": one_line(made.volunteer.name),
        # From the centre of a subdistrict the distance is no better than a guess.
        "approximate": made.place.approximate,
        "reporter": _contact(made.reporter),
        "link": link,
        "drill": drill,
    }


def _contact(reporter: Reporter | None) -> dict[str, str] | None:
    """What of a reporter stands in an e-mail to whoever has the case; None if there is nothing."""
    if reporter is None:
        return None
    told = {name: one_line(getattr(reporter, name) or "") for name in ("name", "phone", "email")}
    return told if any(told.values()) else None


def closed(ended: ClosedOffer, *, drill: bool = False) -> Texts:
    """The texts that tell a volunteer that their offer is over, and why."""
    words = words_of(ended.volunteer.language)
    return _note(
        "closed",
        _word(words["closed"], ended.reason),
        words,
        code=ended.answer_code,
        name=ended.volunteer.name,
        drill=drill,
    )


def reply(
    judged: JudgedAnswer,
    *,
    link: str | None = None,
    reporter: Reporter | None = None,
    drill: bool = False,
) -> Texts:
    """The texts that tell whoever has answered what became of it.

    Whoever has just got the case learns where the details are: the SMS has the link, the e-mail
    has the reporter's contact as well. A link of up to 59 characters leaves it one segment; for a
    longer one it takes two, because without it the volunteer has nothing to go by. Whoever is asked
    back gets the link only if it fits: the words that answer the question stand before it.
    """
    volunteer = judged.volunteer
    words = words_of(volunteer.language if volunteer else LANGUAGES[0])
    table = _word(words["reply"], judged.verdict)
    sentence = short = _word(table, judged.answer)
    theirs = judged.verdict == "recorded" and judged.answer == "accept"
    # What is asked back can be answered on the page as well.
    shows_link = theirs or judged.verdict in ASKED_BACK
    contact = _contact(reporter) if theirs else None
    if theirs and link:
        short = table["accept_contact" if contact else "accept_page"]
    return _note(
        "reply",
        sentence,
        words,
        code=judged.answer_code,
        name=volunteer.name if volunteer else "",
        short=short,
        link=link if shows_link else None,
        reporter=contact,
        at_most=2 if theirs else 1,
        drill=drill,
    )


def ping(
    name: str, code: str, *, language: str = "id", link: str | None = None, drill: bool = False
) -> Texts:
    """The texts that ask a volunteer for a sign of life, and say that nothing has happened."""
    words = words_of(language)
    return _note("ping", words["ping"], words, code=code, name=name, link=link, drill=drill)


def ping_answered(
    name: str = "", code: str | None = None, *, language: str = "id", drill: bool = False
) -> Texts:
    """The texts that thank for a sign of life."""
    words = words_of(language)
    return _note("ping_answered", words["ping_answered"], words, code=code, name=name, drill=drill)


def ask(
    why: str,
    code: str | None = None,
    *,
    language: str = "id",
    codes: Sequence[str] = (),
    officer: str | None = None,
    drill: bool = False,
) -> Texts:
    """The texts that ask back, because an answer was not understood, or that say what can be done.

    ``why`` is ambiguous, not_understood, empty, no_offer, which_offer, two_codes, wrong_number,
    leave, coordinator or nothing_said; any other is a general question. ``officer`` is the number
    of whom to call. ``codes`` are what there is to choose from: the SMS names as
    many as fit.
    """
    words = words_of(language)
    sentence = _word(words["ask"], why)
    if code is None and len(codes) > 1 and why in NAMES_ONE_CODE:
        # None of several is put into their mouth.
        sentence = words["ask"]["which_offer"]
    named = list(codes) or ([code] if code else [words["code"]])
    first = code or named[0]

    def asked(count: int) -> Texts:
        told = ", ".join(named[:count]) + (words["and_more"] if count < len(named) else "")
        values = {"codes": told, "code": first, "officer": f" {officer}" if officer else ""}
        return _note("ask", sentence, words, code=code, values=values, drill=drill)

    whole = asked(len(named))
    count = len(named)
    short = whole.short_text
    while count > 1 and septets(short) > SEGMENT_SEPTETS:
        count -= 1
        short = asked(count).short_text
    return Texts(short_text=short, subject=whole.subject, long_text=whole.long_text)


def duty(told: AnsweredDuty, *, drill: bool = False) -> Texts:
    """The texts that say what became of what somebody wrote about their duty."""
    volunteer = told.volunteer
    words = words_of(volunteer.language if volunteer else LANGUAGES[0])
    about: str = told.about
    if about == "off_duty" and told.holds:
        about = "off_duty_holds"
    codes = ", ".join(told.holds[:NAMED_CASES])
    more = words["and_more"] if len(told.holds) > NAMED_CASES else ""
    values = {
        "day": _day(told.last_day, words) if told.last_day else "",
        "codes": codes + more,
        "code": told.holds[0] if told.holds else words["code"],
    }
    return _note(
        "duty",
        _word(words["duty"], about),
        words,
        name=volunteer.name if volunteer else "",
        values=values,
        drill=drill,
    )


def duty_page(name: str, link: str, *, language: str = "id", drill: bool = False) -> Texts:
    """The texts that bring a volunteer the link to their duty page: two segments, as it is long."""
    words = words_of(language)
    # Without its link the message would say nothing, however long it is.
    return _note(
        "duty_page", words["duty_page"], words, name=name, link=link, at_most=10, drill=drill
    )


def _day(day: date, words: Mapping[str, Any]) -> str:
    """A day as one says it: Senin 30 Nov 2026."""
    weekday = words["weekdays"][str(day.isoweekday())]
    return f"{weekday} {day.day} {words['months'][str(day.month)]} {day.year}"


def stopped(*, language: str = "id", drill: bool = False) -> Texts:
    """The texts that confirm STOP, and tell how to come back."""
    words = words_of(language)
    return _note("stopped", words["stopped"], words, drill=drill)


def started(*, language: str = "id", drill: bool = False) -> Texts:
    """The texts that welcome whoever comes back."""
    words = words_of(language)
    return _note("started", words["started"], words, drill=drill)


# --- words that are about no offer ---------------------------------------------------------------


def thanks(
    role: str, code: str | None = None, *, language: str = "id", drill: bool = False
) -> Texts:
    """The texts that thank for words. ``role`` is reporter (``code`` is the case's) or stranger,
    whose words reach an officer, or kept, for words that are only kept."""
    words = words_of(language)
    return _note("thanks", _word(words["thanks"], role), words, code=code, drill=drill)


def forwarded(
    quotation: str,
    sender: str,
    officer: Coordinator,
    *,
    code: str | None = None,
    drill: bool = False,
) -> Texts:
    """The texts that hand words to an officer: a quotation, as much of it as fits one SMS, and who
    wrote it; with the ``code`` of the case if a reporter did."""
    words = words_of(officer.language)
    sentence = words["forwarded"]["reporter" if code else "other"]
    # The nearest sign of the alphabet may be the one that ends the quotation.
    who = _cut(gsm(one_line(sender)).replace('"', "'"), LONGEST_SENDER)
    short = gsm(one_line(quotation)).replace('"', "'")

    def written(quotation: str, who: str) -> Texts:
        values = {"words": quotation, "sender": who}
        return _note(
            "forwarded", sentence, words, code=code, name=officer.name, values=values, drill=drill
        )

    whole = written(one_line(quotation), one_line(sender))
    room = SEGMENT_SEPTETS - septets(written("", who).short_text)
    return Texts(
        short_text=written(_cut(short, room), who).short_text,
        subject=whole.subject,
        long_text=whole.long_text,
    )


def not_forwarded(count: int, senders: int, officer: Coordinator, *, drill: bool = False) -> Texts:
    """The texts that tell an officer of an hour in which more words came in than they were handed:
    how many, and from how many numbers or addresses."""
    words = words_of(officer.language)
    values = {"count": str(count), "senders": str(senders)}
    return _note(
        "not_forwarded",
        words["not_forwarded"],
        words,
        name=officer.name,
        values=values,
        drill=drill,
    )


# --- to reporters: nothing about the person in need, whoever reads the telephone ----------------


def acknowledged(
    code: str, *, language: str = "id", status_url: str | None = None, drill: bool = False
) -> Texts:
    """The texts that tell a reporter that their report has come in; ``code`` is the case's."""
    return _news("acknowledged", None, code, language, status_url, drill)


def on_the_way(
    code: str, *, language: str = "id", status_url: str | None = None, drill: bool = False
) -> Texts:
    """The texts that tell a reporter that somebody comes."""
    return _news("on_the_way", None, code, language, status_url, drill)


def case_closed(
    code: str,
    outcome: str | None = None,
    *,
    language: str = "id",
    status_url: str | None = None,
    drill: bool = False,
) -> Texts:
    """The texts that tell a reporter how it ended."""
    return _news("case_closed", outcome or "other", code, language, status_url, drill)


def _news(
    purpose: str,
    which: str | None,
    code: str,
    language: str,
    status_url: str | None,
    drill: bool,
) -> Texts:
    words = words_of(language)
    sentence = words[purpose] if which is None else _word(words[purpose], which)
    return _note(purpose, sentence, words, code=code, link=status_url, drill=drill)


# --- to coordinators ---------------------------------------------------------------------------


def escalation(case: EscalatedCase, coordinator: Coordinator, *, drill: bool = False) -> Texts:
    """The texts that tell a coordinator that a case needs them, who was asked and what came back.

    Of the person in need they say what every volunteer is told: kind, place, number of people.
    """
    words = words_of(coordinator.language)
    values = {
        "words": words,
        "code": case.code,
        "reason": _word(words["reasons"], case.reason),
        "searching": case.reason in STILL_SEARCHING,
        "what": _word(words["categories"], case.category),
        "brief": _word(words["brief_categories"], case.category),
        "urgent": case.urgency == "urgent",
        "people": case.people,
        "approximate": case.place.approximate,
        "reported": clock(case.reported_at, case.utc_offset_minutes, f"%d/%m {words['clock']}"),
        "name": one_line(coordinator.name),
        "report": one_line(case.words or ""),
        "asked": [_asked(one, words, approximate=case.place.approximate) for one in case.asked],
        "asked_before": case.asked_left_out,
        "drill": drill,
    }
    return _about_a_place("escalation", case.place, values)


def _asked(one: AskedVolunteer, words: Mapping[str, Any], *, approximate: bool) -> dict[str, Any]:
    return {
        "name": one_line(one.name),
        "phone": one.phone,
        "role": _word(words["roles"], one.role),
        "distance": distance(one.distance_m, words["decimal"], approximate=approximate),
        "state": _word(words["offer_states"], one.state),
        "words": one_line(one.words or ""),
    }


def volunteer_unreachable(
    name: str,
    contact: str | None,
    coordinator: Coordinator,
    *,
    why: str = "stopped",
    drill: bool = False,
) -> Texts:
    """The texts that tell a coordinator that a volunteer is lost to us.

    ``contact`` is their number or e-mail address; ``why`` is stopped (they want no messages) or
    dead_number (nothing arrives there); any other is said in general.
    """
    words = words_of(coordinator.language)
    sentence = _word(words["unreachable"], why)
    who = gsm(one_line(name)) or words["nameless"]
    where = f" ({contact})" if contact else ""
    values = {"name": one_line(name) or words["nameless"], "contact": where}
    whole = _note("unreachable", sentence, words, name=coordinator.name, values=values, drill=drill)

    def short(name: str) -> str:
        values = {"name": name, "contact": gsm(where)}
        return _note("unreachable", sentence, words, values=values, drill=drill).short_text

    return Texts(
        short_text=short(_cut(who, SEGMENT_SEPTETS - septets(short("")))),
        subject=whole.subject,
        long_text=whole.long_text,
    )


def budget(
    district_name: str, used: int, budget: int, coordinator: Coordinator, *, drill: bool = False
) -> Texts:
    """The texts that warn a coordinator that today's SMS, in segments, are nearly spent."""
    values = {"used": str(used), "budget": str(budget)}
    return _of_district("budget", district_name, values, coordinator, drill=drill)


def ceiling(
    district_name: str, used: int, most: int, coordinator: Coordinator, *, drill: bool = False
) -> Texts:
    """The texts that tell a coordinator that no SMS goes out today any more, urgent or not."""
    values = {"used": str(used), "most": str(most)}
    return _of_district("ceiling", district_name, values, coordinator, drill=drill)


def held(waiting: HeldCases, coordinator: Coordinator, *, drill: bool = False) -> Texts:
    """The texts that ask the duty officer to look at reports of which too many came at once."""
    words = words_of(coordinator.language)
    values = {
        "cases": str(waiting.cases),
        "urgent": str(waiting.urgent),
        "look_by": clock(waiting.look_by, waiting.utc_offset_minutes, words["clock"]),
    }
    return _of_district("held", waiting.district_name, values, coordinator, drill=drill)


def _of_district(
    purpose: str,
    district_name: str,
    values: Mapping[str, str],
    coordinator: Coordinator,
    *,
    drill: bool,
) -> Texts:
    """One sentence about a district to a coordinator; in an SMS the name is cut to what fits."""
    words = words_of(coordinator.language)
    values = {**values, "district": one_line(district_name)}
    whole = _note(purpose, words[purpose], words, name=coordinator.name, values=values, drill=drill)

    def short(district: str) -> str:
        changed = {**values, "district": district}
        return _note(purpose, words[purpose], words, values=changed, drill=drill).short_text

    room = SEGMENT_SEPTETS - septets(short(""))
    return Texts(
        short_text=short(_cut(gsm(values["district"]), room)),
        subject=whole.subject,
        long_text=whole.long_text,
    )


# --- how it is written -------------------------------------------------------------------------


def _note(
    purpose: str,
    sentence: str | Sequence[str],
    words: Mapping[str, Any],
    *,
    code: str | None = None,
    name: str = "",
    short: str | Sequence[str] | None = None,
    values: Mapping[str, str] | None = None,
    link: str | None = None,
    reporter: Mapping[str, str] | None = None,
    at_most: int = 1,
    drill: bool = False,
) -> Texts:
    """One sentence with who we are before it and a link behind it.

    Of several sentences the SMS takes the first that fits one segment, the e-mail the first. A
    link with which even the last one costs more than ``at_most`` segments is left to the e-mail.
    """
    filled = {"code": code or words["code"], **(values or {})}
    common = {"words": words, "code": code or "", "name": one_line(name), "drill": drill}
    template = templates().get_template("note.sms.txt")

    def written(one: str, link: str | None) -> str:
        sentence = gsm(fill(one, filled))
        return template.render({**common, "sentence": sentence, "link": link}).strip()

    choice = _list(sentence if short is None else short)
    texts = [written(one, link) for one in choice]
    short_text = next((text for text in texts if segments(text) == 1), texts[-1])
    if link and segments(short_text) > at_most:
        short_text = written(choice[-1], None)
    return _with_letter(
        "note",
        short_text,
        {
            **common,
            "subject": words["subjects"][purpose],
            "sentence": fill(_list(sentence)[0], filled),
            "link": link,
            "link_label": _word(words["links"], purpose),
            "reporter": reporter,
        },
    )


def _list(sentence: str | Sequence[str]) -> Sequence[str]:
    return [sentence] if isinstance(sentence, str) else sentence


def fill(sentence: str, values: Mapping[str, str]) -> str:
    """A sentence of the words with its ``{fields}`` filled in.

    Raises:
        BrokenTexts: it has a field that there is not.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise BrokenTexts(f"{sentence!r}: there is no field {found[0]}; known are {known}.")
        return values[found[1]]

    return _FIELD.sub(value, sentence)


def _about_a_place(purpose: str, where: Place, values: Values) -> Texts:
    village, subdistrict = where.village_name, where.subdistrict_name
    place = one_line(f"{village}, Kec. {subdistrict}" if village else f"Kec. {subdistrict}")
    # Of an approximate place the subdistrict is all that is sure: it is called one.
    short = village and not where.approximate
    bare = one_line(f"{village}, {subdistrict}") if short else place
    return _with_letter(
        purpose,
        _one_segment(purpose, values, gsm(place), bare=gsm(bare)),
        {**values, "place": place},
    )


def _with_letter(purpose: str, short_text: str, values: Values) -> Texts:
    name = f"{purpose}.email.{values['words']['language']}.txt"
    subject, _, body = templates().get_template(name).render(values).partition("\n\n")
    return Texts(short_text=short_text, subject=subject.strip(), long_text=body)


def _one_segment(purpose: str, values: Values, place: str, *, bare: str) -> str:
    """Leave out what the template can do without, step by step, until all fits; then cut the place.

    The last step is taken only where too little would be left of the place. A link that leaves no
    room for a place at all (of an address far longer than 40 characters) is left to the e-mail.
    """
    template = templates().get_template(f"{purpose}.sms.{values['words']['language']}.txt")
    link = values.get("link")

    def written(place: str, tight: int) -> str:
        return template.render({**values, "link": link}, place=place, tight=tight).strip()

    if link and not (is_gsm(link) and _room(written("", TIGHTEST)) >= SHORTEST_PLACE // 2):
        link = None
    for tight in range(TIGHTEST):
        where = place if tight < BARE_PLACE else bare
        room = _room(written("", tight))
        if septets(where) <= room:
            return written(where, tight)
    # One more for the full stop that says that it was cut.
    tight = TIGHTEST - 1 if room > SHORTEST_PLACE else TIGHTEST
    return written(_cut_place(bare, _room(written("", tight))), tight)


def _room(bare: str) -> int:
    return SEGMENT_SEPTETS - septets(bare)


def _cut(text: str, room: int) -> str:
    """A text in the basic alphabet shortened to so many septets, with a full stop where it ends."""
    if len(text) <= room:
        return text
    return text[: max(room - 1, 0)].rstrip(" ,.") + "." if room > 0 else ""


def _cut_place(place: str, room: int) -> str:
    """A place shortened, without a "Kec." of which no name is left."""
    cut = _cut(place, room)
    return cut if cut == place else re.sub(r", K(ec?)?\.*$", ".", cut)


def clock(
    moment: datetime, utc_offset_minutes: int, form: str = "%H.%M", *, zone: bool = True
) -> str:
    """The district's time of day with the name of its zone: 14.30 WIB."""
    local = moment.astimezone(timezone(timedelta(minutes=utc_offset_minutes)))
    name = ZONES.get(utc_offset_minutes, "") if zone else ""
    return f"{local.strftime(form)} {name}".strip()


def distance(metres: float, decimal: str = ",", *, approximate: bool = False) -> str:
    """A distance as one would say it: 350 m, 3,2 km, 41 km.

    To an approximate place, the centre of a subdistrict, it is in whole kilometres: no more is
    known.
    """
    if approximate:
        return f"{max(round(metres / 1000), 1)} km"
    if metres < 950:
        return f"{max(round(metres, -1), 10):.0f} m"
    kilometres = metres / 1000
    if kilometres >= 20:
        return f"{kilometres:.0f} km"
    return f"{kilometres:.1f} km".replace(".", decimal)
