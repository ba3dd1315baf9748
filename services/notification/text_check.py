"""Every text with samples: checked when the service starts, shown by `jangkau message preview`."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

from jinja2 import Environment, TemplateError, TemplateSyntaxError, meta

from services.notification import texts
from services.notification.gsm import GSM_BASIC, GSM_EXTENDED, is_gsm, segments
from services.notification.texts import LANGUAGES, TEMPLATES, BrokenTexts, Texts
from shared.events import (
    ASKED_AT_MOST,
    AnsweredDuty,
    AskedVolunteer,
    Category,
    ClosedOffer,
    Coordinator,
    EscalatedCase,
    HeldCases,
    JudgedAnswer,
    MadeOffer,
    OfferedVolunteer,
    Place,
    Reporter,
    Urgency,
)

# What a template may name, by the purpose that its file is of.
_PLACED = {"words", "code", "what", "brief", "urgent", "people", "approximate", "name", "drill"}
_OFFERED = _PLACED | {"distance", "until", "time", "reporter", "link", "place"}
_ESCALATED = _PLACED | {
    "reason",
    "searching",
    "reported",
    "report",
    "asked",
    "asked_before",
    "place",
}
_NOTE = {"words", "code", "name", "drill", "sentence", "link"}
FIELDS: Mapping[str, set[str]] = {
    "offer.sms": _OFFERED | {"tight"},
    "offer.email": _OFFERED,
    "assigned.sms": _OFFERED | {"tight"},
    "assigned.email": _OFFERED,
    "escalation.sms": _ESCALATED | {"tight"},
    "escalation.email": _ESCALATED,
    "note.sms": _NOTE,
    "note.email": _NOTE | {"subject", "link_label", "reporter"},
}

# Of the signed link to a volunteer's duty page, which assignment makes.
DUTY_TOKEN_LENGTH = 102

_NOON = datetime(2026, 3, 1, 5, 0, tzinfo=UTC)
_ID = UUID(int=1)


@dataclass(frozen=True)
class Sample:
    """What a text is tried with."""

    language: str = "id"
    urgent: bool = False
    people: int = 1
    drill: bool = False
    category: Category = "elderly_abandoned"
    code: str = "K7P2M"
    case_code: str = "HGC5T9ZW4K"
    name: str = "Siti Rahmawati"
    village: str | None = "Berok"
    subdistrict: str = "Koba"
    district: str = "Bangka Tengah"
    distance_m: float = 3200.0
    approximate: bool = False
    utc_offset_minutes: int = 420
    link: str | None = "https://jangkau.bangkatengahkab.go.id/r/K7P2MvQ3_x-8LmTz"
    status_url: str | None = None
    words: str = "jembatan putus"
    asked: int = 3


# The longest of everything that may stand in a text: the address of an installation may have 40
# characters, and the names are the longest of a village and of a subdistrict in the country.
LONGEST = Sample(
    urgent=True,
    people=1000,
    drill=True,
    code="WMWMW",
    case_code="WMWMWMWMWM",
    name="Raden Ajeng Siti Nurhaliza Rahmawati Kusumaningtyas Wijayakusuma",
    village="Kampuang Tanjuang Koto Mambang Sungai Durian",
    subdistrict="Buay Pematang Ribu Ranau Tengah",
    district="Kabupaten Kep. Siau Tagulandang Biaro",
    distance_m=1_000_000.0,
    approximate=True,
    utc_offset_minutes=480,
    link="https://jangkau.dinsos.kabupaten99.go.id/r/WMWMWmmmmmmmmmmm",
    asked=120,
)


@dataclass(frozen=True)
class Purpose:
    """One kind of message: ``write`` makes it from a sample and one of its ``choices``.

    ``file`` is what its templates are called; ``table`` the words that its sentences stand in.
    """

    about: str
    file: str
    write: Callable[[Sample, str], Texts]
    choices: tuple[str, ...] = ("",)
    table: str | None = None
    segments: int = 1


def _volunteer(sample: Sample) -> OfferedVolunteer:
    return OfferedVolunteer(
        id=_ID,
        name=sample.name,
        phone="+6281234567890",
        email="siti@example.org",
        language=sample.language,
    )


def _coordinator(sample: Sample) -> Coordinator:
    return Coordinator(
        name="Ani", phone="+6281200000001", email="ani@example.org", language=sample.language
    )


def _reporter(sample: Sample) -> Reporter:
    return Reporter(
        name="Budi", phone="+6281299998888", email="budi@example.org", language=sample.language
    )


def _place(sample: Sample) -> Place:
    return Place(
        latitude=-2.493,
        longitude=106.408,
        approximate=sample.approximate,
        subdistrict="19.04.01",
        subdistrict_name=sample.subdistrict,
        village_name=sample.village,
        centre_latitude=-2.493,
        centre_longitude=106.408,
    )


def _urgency(sample: Sample) -> Urgency:
    return "urgent" if sample.urgent else "normal"


def _made(sample: Sample, *, given: bool = False) -> MadeOffer:
    return MadeOffer(
        offer_id=_ID,
        answer_code=sample.code,
        respond_by=_NOON + timedelta(minutes=10),
        volunteer=_volunteer(sample),
        distance_m=sample.distance_m,
        category=sample.category,
        urgency=_urgency(sample),
        people=sample.people,
        place=_place(sample),
        utc_offset_minutes=sample.utc_offset_minutes,
        reported_at=_NOON,
        reporter=_reporter(sample) if given else None,
    )


def _offer(sample: Sample, _: str) -> Texts:
    return texts.offer(_made(sample), link=sample.link, drill=sample.drill)


def _assigned(sample: Sample, _: str) -> Texts:
    return texts.assigned(_made(sample, given=True), link=sample.link, drill=sample.drill)


def _escalation(sample: Sample, reason: str) -> Texts:
    one = AskedVolunteer(
        name=sample.name,
        phone="+6281234567890",
        role="psm",
        distance_m=sample.distance_m,
        state="declined",
        words="maaf, di luar kota",
    )
    case = EscalatedCase(
        code=sample.case_code,
        reason=reason,
        words=sample.words if reason == "obstacle" else None,
        coordinators=[_coordinator(sample)],
        asked=[one] * min(sample.asked, ASKED_AT_MOST),
        asked_left_out=max(sample.asked - ASKED_AT_MOST, 0),
        category=sample.category,
        urgency=_urgency(sample),
        people=sample.people,
        place=_place(sample),
        utc_offset_minutes=sample.utc_offset_minutes,
        reported_at=_NOON,
    )
    return texts.escalation(case, _coordinator(sample), drill=sample.drill)


def _closed(sample: Sample, reason: str) -> Texts:
    ended = ClosedOffer(
        offer_id=_ID, answer_code=sample.code, reason=reason, volunteer=_volunteer(sample)
    )
    return texts.closed(ended, drill=sample.drill)


def _reply(sample: Sample, choice: str) -> Texts:
    verdict, _, answer = choice.rpartition(".")
    contact = answer != "accept_page"
    judged = JudgedAnswer(
        offer_id=_ID,
        answer_code=sample.code,
        answer="accept" if answer in ("accept_page", "accept_contact") else answer,
        verdict=verdict or "recorded",
        volunteer=_volunteer(sample),
    )
    return texts.reply(
        judged,
        # "accept" alone is what is said where the installation has no address for links.
        link=None if choice == "accept" else sample.link,
        reporter=_reporter(sample) if contact else None,
        drill=sample.drill,
    )


def _ping(sample: Sample, _: str) -> Texts:
    return texts.ping(
        sample.name, sample.code, language=sample.language, link=sample.link, drill=sample.drill
    )


def _ask(sample: Sample, why: str) -> Texts:
    several = why in ("which_offer", "two_codes")
    return texts.ask(
        why,
        None if several or why in _NO_CODE else sample.code,
        language=sample.language,
        codes=(sample.code, "R4T8N", "C9X3H") if several else (),
        officer="+6281234567890",
        drill=sample.drill,
    )


def _duty(sample: Sample, about: str) -> Texts:
    told = AnsweredDuty(
        about=about.removesuffix("_holds"),
        volunteer=_volunteer(sample),
        last_day=date(2027, 9, 29),
        holds=[sample.code] * 4 if about == "off_duty_holds" else [],
    )
    return texts.duty(told, drill=sample.drill)


def _duty_page(sample: Sample, _: str) -> Texts:
    link = f"https://jangkau.dinsos.kabupaten99.go.id/v/{'W' * DUTY_TOKEN_LENGTH}"
    return texts.duty_page(sample.name, link, language=sample.language, drill=sample.drill)


def _thanks(sample: Sample, role: str) -> Texts:
    code = sample.case_code if role == "reporter" else None
    return texts.thanks(role, code, language=sample.language, drill=sample.drill)


def _forwarded(sample: Sample, role: str) -> Texts:
    return texts.forwarded(
        f"{sample.words} {sample.village or ''} {sample.name}",
        "+6281234567890",
        _coordinator(sample),
        code=sample.case_code if role == "reporter" else None,
        drill=sample.drill,
    )


def _not_forwarded(sample: Sample, _: str) -> Texts:
    return texts.not_forwarded(1_000_000, 100_000, _coordinator(sample), drill=sample.drill)


def _simple(write: Callable[..., Texts]) -> Callable[[Sample, str], Texts]:
    return lambda sample, _: write(language=sample.language, drill=sample.drill)


def _news(write: Callable[..., Texts]) -> Callable[[Sample, str], Texts]:
    return lambda sample, choice: write(
        sample.case_code,
        *([choice] if choice else []),
        language=sample.language,
        status_url=sample.status_url,
        drill=sample.drill,
    )


def _unreachable(sample: Sample, why: str) -> Texts:
    return texts.volunteer_unreachable(
        sample.name, "+6281234567890", _coordinator(sample), why=why, drill=sample.drill
    )


def _budget(sample: Sample, _: str) -> Texts:
    return texts.budget(sample.district, 400, 500, _coordinator(sample), drill=sample.drill)


def _ceiling(sample: Sample, _: str) -> Texts:
    return texts.ceiling(sample.district, 5000, 5000, _coordinator(sample), drill=sample.drill)


def _held(sample: Sample, _: str) -> Texts:
    waiting = HeldCases(
        district_name=sample.district,
        cases=540,
        urgent=120,
        reasons=["too_many_from_one_address"],
        look_by=_NOON + timedelta(minutes=10),
        utc_offset_minutes=420,
        coordinators=[],
    )
    return texts.held(waiting, _coordinator(sample), drill=sample.drill)


def _words_in(contract: type[Any], field: str) -> tuple[str, ...]:
    return tuple(contract.model_json_schema()["properties"][field]["enum"])


# What became of an answer: recorded, where no verdict stands before it.
_REPLIES = (
    "accept_contact", "accept_page", "accept", "decline", "arrived", "done", "obstacle",
    "hand_back", "already_recorded.accept", "too_late.accept", "too_late.arrived",
    "already_recorded.done", "taken_by_another.accept", "case_closed.accept", "hands_full.accept",
    "not_accepted_yet.arrived", "unconfirmed.done", "unconfirmed.other",
    "not_yours.accept", "unknown_offer.accept",
)  # fmt: skip
_WHY = (
    "not_understood", "ambiguous", "empty", "no_offer", "which_offer", "two_codes", "wrong_number",
    "leave", "coordinator", "nothing_said", "not_proven", "other",
)  # fmt: skip
# Of these questions no code is an answer.
_NO_CODE = ("no_offer", "leave", "coordinator", "nothing_said")
_DUTY = ("off_duty", "off_duty_holds", "duty_page", "refused", "unknown", "other")
_OUTCOMES = ("resolved", "referred", "not_found", "cancelled", "other")

PURPOSES: Mapping[str, Purpose] = {
    "offer": Purpose("a volunteer is asked to come", "offer", _offer),
    "assigned": Purpose("a coordinator has given a volunteer a case", "assigned", _assigned),
    "reply": Purpose(
        "what became of an answer", "note", _reply, _REPLIES, table="reply", segments=1
    ),
    "closed": Purpose(
        "a volunteer need not come",
        "note",
        _closed,
        tuple(word for word in _words_in(ClosedOffer, "reason") if word != "expired"),
        table="closed",
    ),
    "ask": Purpose("an answer was not understood", "note", _ask, _WHY, table="ask"),
    "duty": Purpose("days off are noted", "note", _duty, _DUTY, table="duty"),
    # The link is long: it is signed with its time.
    "duty_page": Purpose("the link to the duty page", "note", _duty_page, segments=2),
    "thanks": Purpose(
        "words about no offer came in",
        "note",
        _thanks,
        ("reporter", "stranger", "kept", "other"),
        table="thanks",
    ),
    "forwarded": Purpose(
        "an officer gets words", "note", _forwarded, ("reporter", "other"), table="forwarded"
    ),
    "not_forwarded": Purpose("there were too many words", "note", _not_forwarded),
    "ping": Purpose("can this volunteer be reached?", "note", _ping),
    "ping_answered": Purpose("yes, they can", "note", _simple(texts.ping_answered)),
    "stopped": Purpose("STOP is understood", "note", _simple(texts.stopped)),
    "started": Purpose("MULAI is understood", "note", _simple(texts.started)),
    "acknowledged": Purpose("a reporter gets their code", "note", _news(texts.acknowledged)),
    "on_the_way": Purpose("a reporter hears that somebody comes", "note", _news(texts.on_the_way)),
    "case_closed": Purpose(
        "a reporter hears how it ended",
        "note",
        _news(texts.case_closed),
        _OUTCOMES,
        table="case_closed",
    ),
    "escalation": Purpose(
        "a case needs its coordinator",
        "escalation",
        _escalation,
        _words_in(EscalatedCase, "reason"),
        table="reasons",
    ),
    "unreachable": Purpose(
        "a coordinator loses a volunteer",
        "note",
        _unreachable,
        ("stopped", "dead_number", "other"),
        table="unreachable",
    ),
    "budget": Purpose("today's SMS are nearly spent", "note", _budget),
    "ceiling": Purpose("no SMS goes out today any more", "note", _ceiling),
    "held": Purpose("too many reports came at once", "note", _held),
}


def check() -> None:
    """See :func:`services.notification.texts.check`."""
    own = texts.own_folder()
    if own is not None:
        _check_names(own)
    tables = _check_words(own)
    _check_fields()
    for language in LANGUAGES:
        _check_alphabet(tables[language], language)
        for purpose, entry in PURPOSES.items():
            for choice in entry.choices:
                _check_texts(purpose, choice, language)


def _check_names(own: Path) -> None:
    """A file with a slip in its name would be ignored without a word."""
    known = {file.name for file in TEMPLATES.iterdir() if file.suffix in (".txt", ".toml")}
    for file in sorted(own.iterdir()):
        if file.suffix in (".txt", ".toml") and file.name not in known:
            raise BrokenTexts(
                f"{file}: there is no text of this name; known are {', '.join(sorted(known))}."
            )


def _check_words(own: Path | None) -> dict[str, Mapping[str, Any]]:
    ours = {language: _read(TEMPLATES / f"words.{language}.toml") for language in LANGUAGES}
    first = _keys(ours[LANGUAGES[0]])
    for language in LANGUAGES[1:]:
        other = _keys(ours[language])
        if first != other:
            key = sorted(first ^ other)[0]
            lacks = LANGUAGES[0] if key in other else language
            raise BrokenTexts(f"words.{lacks}.toml: {key} is missing, which the other has.")
    for language in LANGUAGES if own else ():
        file = Path(own or "") / f"words.{language}.toml"
        theirs = _read(file) if file.exists() else {}
        for key in sorted(_keys(theirs) - first):
            raise BrokenTexts(f"{file}: there is no word {key}.")
    merged = {language: texts.words_of(language) for language in LANGUAGES}
    for language, table in merged.items():
        for key, value in _values(table):
            several = isinstance(value, list) and not key.startswith(_ONE_ALONE)
            told = value if several else [value]
            if not told or not all(isinstance(one, str) and one.strip() for one in told):
                raise BrokenTexts(f"{_where(f'words.{language}.toml')}: {key} must be a sentence.")
    return merged


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BrokenTexts(f"{file}: {error}") from None


def _values(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _values(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _keys(table: Mapping[str, Any]) -> set[str]:
    return {key for key, _ in _values(table)}


def _at(table: Mapping[str, Any], key: str) -> Any:
    found: Any = table
    for part in key.split("."):
        found = found[part]
    return found


# These stand in e-mails alone.
_ONLY_IN_MAIL = ("subjects", "links", "roles", "offer_states")


# Of these there is only one.
_ONE_ALONE = (
    *_ONLY_IN_MAIL, "weekdays", "months",
    "categories", "brief_categories", "reasons", "decimal", "clock", "drill",
    "code", "and_more", "nameless",
)  # fmt: skip


def _check_alphabet(words: Mapping[str, Any], language: str) -> None:
    for key, value in _values(words):
        if key.partition(".")[0] in _ONLY_IN_MAIL:
            continue
        for sentence in value if isinstance(value, list) else [value]:
            _gsm_only(sentence, f"words.{language}.toml: {key}")


def _gsm_only(text: str, where: str) -> None:
    for character in text:
        if character not in GSM_BASIC and character not in GSM_EXTENDED:
            raise BrokenTexts(
                f"{where}: {character!r} is not in the alphabet of SMS; every message with it "
                "would cost more than twice as much."
            )


def _check_fields() -> None:
    """Every branch of every template names only what there is."""
    environment = texts.templates()
    for name in sorted(environment.list_templates(extensions=("txt",))):
        purpose, channel = name.split(".")[:2]
        parsed = _parse(environment, name)
        known = FIELDS[f"{purpose}.{channel}"]
        for field in sorted(meta.find_undeclared_variables(parsed) - known):
            raise BrokenTexts(
                f"{_where(name)}: there is no field {field}; known are {', '.join(sorted(known))}."
            )


def _parse(environment: Environment, name: str) -> Any:
    assert environment.loader is not None  # noqa: S101 - it is ours
    try:
        source, _, _ = environment.loader.get_source(environment, name)
        return environment.parse(source, name)
    except TemplateSyntaxError as error:
        raise BrokenTexts(f"{_where(name)}, line {error.lineno}: {error.message}") from None
    except UnicodeDecodeError as error:
        raise BrokenTexts(f"{_where(name)}: {error}") from None


def _where(name: str) -> str:
    """The file that is meant: an installation's own, or ours."""
    own = texts.own_folder()
    return str(own / name) if own is not None and (own / name).exists() else name


def samples(language: str) -> Iterator[Sample]:
    """What each text is tried with: the plain, the longest, and what changes the sentence."""
    plain = replace(Sample(), language=language)
    longest = replace(LONGEST, language=language)
    yield plain
    yield replace(plain, urgent=True, people=3, drill=True, link=None, village=None)
    yield replace(plain, urgent=True, people=3, approximate=True, asked=0)
    for drill, link in product((False, True), (longest.link, None)):
        yield replace(longest, drill=drill, link=link)
    yield replace(longest, link=None, status_url="https://jangkau.dinsos.kabupaten99.go.id/s/WMWMW")
    yield longest


def _check_texts(purpose: str, choice: str, language: str) -> None:
    entry = PURPOSES[purpose]
    about = f"{purpose} {choice}".strip()
    for sample in samples(language):
        for category in get_args(Category) if purpose in ("offer", "assigned") else (None,):
            tried = sample if category is None else replace(sample, category=category)
            try:
                written = entry.write(tried, choice)
            except BrokenTexts as error:
                raise BrokenTexts(f"words.{language}.toml ({about}): {error}") from None
            except (TemplateError, KeyError, TypeError, ValueError) as error:
                raise BrokenTexts(
                    f"{_files(entry, language)} ({about}): {type(error).__name__}: {error}"
                ) from None
            _check_written(entry, about, tried, written)


def _files(entry: Purpose, language: str) -> str:
    sms = "note.sms.txt" if entry.file == "note" else f"{entry.file}.sms.{language}.txt"
    return f"{_where(sms)} or {_where(f'{entry.file}.email.{language}.txt')}"


def _check_written(entry: Purpose, about: str, sample: Sample, written: Texts) -> None:
    language = sample.language
    note = entry.file == "note"
    sms = _where("note.sms.txt" if note else f"{entry.file}.sms.{language}.txt")
    email = _where(f"{entry.file}.email.{language}.txt")
    words = f" and words.{language}.toml" if note else ""
    short = written.short_text
    if not is_gsm(short):
        _gsm_only(short, f"{sms}{words} ({about})")
    if segments(short) > entry.segments:
        raise BrokenTexts(
            f"{sms}{words} ({about}): it takes {segments(short)} SMS and may take "
            f"{entry.segments}: {short}"
        )
    if not written.subject.strip() or not written.long_text.strip():
        raise BrokenTexts(
            f"{email} ({about}): the first line is the subject, then an empty line, then the text."
        )
    if len(written.subject.splitlines()) != 1:
        raise BrokenTexts(f"{email} ({about}): the subject must be one line.")
    mark = texts.words_of(language)["drill"]
    told = ((sms, short), (f"{email}, subject", written.subject), (email, written.long_text))
    for where, text in told if sample.drill else ():
        if mark not in text:
            raise BrokenTexts(f"{where} ({about}): a drill must say {mark}.")
    _check_says(entry, about, sample, written, sms=sms, email=email)


def _check_says(
    entry: Purpose, about: str, sample: Sample, written: Texts, *, sms: str, email: str
) -> None:
    """What a message of its kind cannot do without."""
    purpose = about.partition(" ")[0]
    needed = {
        "code": {"offer": sample.code, "assigned": sample.code, "ping": sample.code}.get(
            purpose, sample.case_code if purpose == "escalation" else None
        ),
        "link": sample.link if purpose in ("offer", "assigned", "ping") else None,
        "time": _time(sample) if purpose == "offer" else None,
    }
    if about == "reply unconfirmed.done":
        # Our question has to ask for what always counts, or it would be asked for ever.
        needed["word and code (SELESAI {code})"] = f"SELESAI {sample.code}"
    link = sample.link or ""
    for field, value in needed.items():
        for where, text in ((sms, written.short_text), (email, written.long_text)):
            # The link has the code in it, which nobody would find there.
            told = text if field == "link" else text.replace(link, "")
            if value is not None and value not in told:
                room = ", or leaves no room for it" if field == "link" else ""
                raise BrokenTexts(f"{where} ({about}): it does not say the {field}{room}.")


def _time(sample: Sample) -> str:
    form = texts.words_of(sample.language)["clock"]
    return texts.clock(_made(sample).respond_by, sample.utc_offset_minutes, form, zone=False)
