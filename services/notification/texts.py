"""What a message says: templates, and what fits into one SMS segment."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shared.events import MadeOffer

TEMPLATES = Path(__file__).parent / "templates"

# 3GPP TS 23.038, 6.2.1: the GSM 7 bit default alphabet, and the characters that cost two septets.
GSM_BASIC = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENDED = set("^{}\\[~]|€\f")
SEGMENT_SEPTETS = 160

WHAT = {
    "elderly_abandoned": "lansia terlantar",
    "child_neglected": "anak terlantar",
    "stranded_traveller": "orang terlantar di jalan",
    "mental_illness": "orang perlu bantuan jiwa",
    "homeless": "orang tanpa tempat tinggal",
    "beggar": "pengemis",
    "disability": "penyandang disabilitas",
    "violence_victim": "korban kekerasan",
    "disaster_victim": "korban bencana",
    "poor_family": "keluarga tidak mampu",
    "other": "orang perlu bantuan",
}

# Names of Indonesia's three time zones by their offset in minutes.
ZONES = {420: "WIB", 480: "WITA", 540: "WIT"}


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
    local = timezone(timedelta(minutes=made.utc_offset_minutes))
    village, subdistrict = made.place.village_name, made.place.subdistrict_name
    place = f"{village}, Kec. {subdistrict}" if village else f"Kec. {subdistrict}"
    place = " ".join(place.split())  # a line break in the subject would be a header of its own
    zone = ZONES.get(made.utc_offset_minutes, "")
    values = {
        "code": made.answer_code,
        "what": WHAT[made.category],
        "urgent": made.urgency == "urgent",
        "people": made.people,
        # From the centre of a subdistrict it is no better than a guess.
        "distance": ("sekitar " if made.place.approximate else "") + distance(made.distance_m),
        "until": f"{clock(made.respond_by, local)} {zone}".strip(),
        "name": made.volunteer.name,
        "approximate": made.place.approximate,
        "drill": drill,
    }
    letter = _templates().get_template("offer.email.id.txt").render(**values, place=place)
    subject, _, body = letter.partition("\n\n")
    return Texts(short_text=_one_segment(values, place), subject=subject, long_text=body)


def _one_segment(values: dict[str, object], place: str) -> str:
    """Shorten the place, the only part without a bound of its own, until all fits."""
    template = _templates().get_template("offer.sms.id.txt")
    place = gsm(place)
    text = template.render(**values, place=place)
    excess = septets(text) - SEGMENT_SEPTETS
    if excess > 0:
        text = template.render(**values, place=place[: -excess - 1].rstrip(" ,.") + ".")
    return text


def clock(moment: datetime, zone: timezone) -> str:
    """The time of day as Indonesians write it: 14.30."""
    return moment.astimezone(zone).strftime("%H.%M")


def distance(metres: float) -> str:
    """A distance as one would say it: 350 m, 3,2 km, 41 km."""
    if metres < 950:
        return f"{max(round(metres, -1), 10):.0f} m"
    kilometres = metres / 1000
    return f"{kilometres:.1f} km".replace(".", ",") if kilometres < 20 else f"{kilometres:.0f} km"
