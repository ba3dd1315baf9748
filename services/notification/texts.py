"""What a message says: templates and words by language, and what fits into one SMS segment.

``templates/`` has one file per purpose, channel and language; the short words and sentences of a
language stand in its ``words`` file.
"""

import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shared.events import (
    AskedVolunteer,
    ClosedOffer,
    Coordinator,
    EscalatedCase,
    JudgedAnswer,
    MadeOffer,
    Place,
)
from shared.words import one_line

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("id", "en")

# 3GPP TS 23.038, 6.2.1: the GSM 7 bit default alphabet, and the characters that cost two septets.
GSM_BASIC = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENDED = set("^{}\\[~]|€\f")
SEGMENT_SEPTETS = 160
# A place that is cut shorter than this helps nobody: rather do without the template's extras.
SHORTEST_PLACE = 16

# Names of Indonesia's three time zones by their offset in minutes.
ZONES = {420: "WIB", 480: "WITA", 540: "WIT"}

# Escalations behind which volunteers are still being looked for.
STILL_SEARCHING = ("nobody_accepted_in_time",)

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Texts:
    """One message in the forms that channels need."""

    short_text: str
    subject: str
    long_text: str


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - plain text for telephones and mailboxes, never HTML
        trim_blocks=False,
    )


def words_of(language: str) -> Mapping[str, Any]:
    """The words of a language; Indonesian stands in for one that there is not."""
    return _words(language if language in LANGUAGES else LANGUAGES[0])


@cache
def _words(language: str) -> Mapping[str, Any]:
    found = tomllib.loads((TEMPLATES / f"words.{language}.toml").read_text(encoding="utf-8"))
    return {**found, "language": language}


def _word(table: Mapping[str, Any], word: str) -> Any:
    """What a word of an event means, or what stands for one that this version does not know."""
    return table.get(word, table["other"])


def septets(text: str) -> int:
    """Length of a text in GSM 7 bit septets; a segment holds 160.

    Raises:
        ValueError: a character is not in the alphabet and would turn the SMS into UCS-2.
    """
    count = 0
    for character in text:
        if character in GSM_BASIC:
            count += 1
        elif character in GSM_EXTENDED:
            count += 2
        else:
            raise ValueError(f"{character!r} is not in the GSM 7 bit alphabet")
    return count


def gsm(text: str) -> str:
    """The nearest text in the basic GSM alphabet: accents go, what remains foreign is ``?``."""
    result = []
    for character in text:
        if character in GSM_BASIC:
            result.append(character)
            continue
        plain = "".join(
            part for part in unicodedata.normalize("NFKD", character) if part in GSM_BASIC
        )
        result.append(plain or "?")
    return "".join(result)


def offer(made: MadeOffer, *, drill: bool = False) -> Texts:
    """The texts that ask a volunteer to come."""
    return _about_a_place("offer", made.place, _offered(made, drill))


def assigned(made: MadeOffer, *, drill: bool = False) -> Texts:
    """The texts that tell a volunteer that a coordinator has given them this case."""
    return _about_a_place("assigned", made.place, _offered(made, drill))


def _offered(made: MadeOffer, drill: bool) -> dict[str, Any]:
    words = words_of(made.volunteer.language)
    return {
        "words": words,
        "code": made.answer_code,
        "what": _word(words["categories"], made.category),
        "urgent": made.urgency == "urgent",
        "people": made.people,
        "distance": distance(made.distance_m, words["decimal"]),
        "until": clock(made.respond_by, made.utc_offset_minutes, words["clock"]),
        "name": one_line(made.volunteer.name),
        # From the centre of a subdistrict the distance is no better than a guess.
        "approximate": made.place.approximate,
        "drill": drill,
    }


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
        "urgent": case.urgency == "urgent",
        "people": case.people,
        "approximate": case.place.approximate,
        "reported": clock(case.reported_at, case.utc_offset_minutes, f"%d/%m {words['clock']}"),
        "name": one_line(coordinator.name),
        "report": one_line(case.words or ""),
        "asked": [_asked(one, words) for one in case.asked],
        "drill": drill,
    }
    return _about_a_place("escalation", case.place, values)


def _asked(one: AskedVolunteer, words: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": one_line(one.name),
        "phone": one.phone,
        "role": _word(words["roles"], one.role),
        "distance": distance(one.distance_m, words["decimal"]),
        "state": _word(words["offer_states"], one.state),
        "words": one_line(one.words or ""),
    }


def closed(ended: ClosedOffer, *, drill: bool = False) -> Texts:
    """The texts that tell a volunteer that their offer is over, and why."""
    words = words_of(ended.volunteer.language)
    sentence = _word(words["closed"], ended.reason)
    return _note("closed", sentence, words, ended.answer_code, ended.volunteer.name, drill)


def reply(judged: JudgedAnswer, *, drill: bool = False) -> Texts:
    """The texts that tell whoever has answered what became of it."""
    volunteer = judged.volunteer
    words = words_of(volunteer.language if volunteer else LANGUAGES[0])
    sentence = _word(_word(words["reply"], judged.verdict), judged.answer)
    name = volunteer.name if volunteer else ""
    return _note("reply", sentence, words, judged.answer_code, name, drill)


def _note(
    purpose: str,
    sentence: str,
    words: Mapping[str, Any],
    code: str | None,
    name: str,
    drill: bool,
) -> Texts:
    values = {
        "words": words,
        "code": code or "",
        "subject": words["subjects"][purpose],
        "sentence": sentence.replace("{code}", code or words["code"]),
        "name": one_line(name),
        "drill": drill,
    }
    short = _templates().get_template("note.sms.txt").render(values)
    return _with_letter("note", short, values)


def _about_a_place(purpose: str, where: Place, values: Values) -> Texts:
    village, subdistrict = where.village_name, where.subdistrict_name
    place = one_line(f"{village}, Kec. {subdistrict}" if village else f"Kec. {subdistrict}")
    return _with_letter(
        purpose, _one_segment(purpose, values, gsm(place)), {**values, "place": place}
    )


def _with_letter(purpose: str, short_text: str, values: Values) -> Texts:
    name = f"{purpose}.email.{values['words']['language']}.txt"
    subject, _, body = _templates().get_template(name).render(values).partition("\n\n")
    return Texts(short_text=short_text, subject=subject, long_text=body)


def _one_segment(purpose: str, values: Values, place: str) -> str:
    """Shorten the place, the only part without a bound of its own, until all fits.

    Where too little would be left of it, the template's extras go first (``tight``).
    """
    template = _templates().get_template(f"{purpose}.sms.{values['words']['language']}.txt")
    for tight in (False, True):
        bare = template.render(values, place="", tight=tight)
        room = SEGMENT_SEPTETS - septets(bare)
        if len(place) <= room:
            break
        if tight or room >= SHORTEST_PLACE:
            place = place[: max(room - 1, 0)].rstrip(" ,.") + "."
            break
    return template.render(values, place=place, tight=tight)


def clock(moment: datetime, utc_offset_minutes: int, form: str = "%H.%M") -> str:
    """The district's time of day with the name of its zone: 14.30 WIB."""
    local = moment.astimezone(timezone(timedelta(minutes=utc_offset_minutes)))
    return f"{local.strftime(form)} {ZONES.get(utc_offset_minutes, '')}".strip()


def distance(metres: float, decimal: str = ",") -> str:
    """A distance as one would say it: 350 m, 3,2 km, 41 km."""
    if metres < 950:
        return f"{max(round(metres, -1), 10):.0f} m"
    kilometres = metres / 1000
    if kilometres >= 20:
        return f"{kilometres:.0f} km"
    return f"{kilometres:.1f} km".replace(".", decimal)
