"""What people write to us: kept as it came, tied to what it is about, and answered.

One transaction keeps a text together with what follows from it: an event for assignment, or a
message back. What is not clear is asked back, never guessed.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import get_args
from uuid import NAMESPACE_URL, UUID, uuid5
from zoneinfo import ZoneInfo

import structlog
from prometheus_client import Counter
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.notification import answers, asked, messages, officers, reported_by, texts
from services.notification.channels import Kind
from services.notification.handlers import Office
from services.notification.incoming.reading import Reading, classify
from services.notification.letters import REPLY_LIFE, Letter, of_policy, to_coordinator
from services.notification.offers import HELD
from services.notification.routes import stopped
from services.notification.texts import Texts
from shared import outbox
from shared.codes import ALPHABET, normalised
from shared.contacts import PhoneError, e164
from shared.database import Row, execute, now, sql
from shared.events import (
    Answer,
    StoppedVolunteer,
    VolunteerStopped,
)
from shared.words import storable

log = structlog.get_logger("inbound")

INBOUND = Counter(
    "jangkau_inbound_total",
    "Texts that came in, by what they were taken for. Rising `ask`: people do not know how to "
    "answer; rising `ignored`: machines write to us.",
    ["channel", "meaning"],
)

# A gateway without ids of its own repeats a webhook within seconds. A person who writes the same
# again after that means it again.
REPEATED_WITHIN = timedelta(minutes=1)
# A machine that answers our questions is not asked for ever.
QUESTIONS_AT_MOST = 3
# Nor is somebody in whose name others write.
DOUBTS_AT_MOST = 1
NOT_PROVEN = "not_proven"
QUESTIONS_WITHIN = timedelta(hours=1)
# What is answered so often and no more, each of them counted for itself.
LIMITED = ("ask", "duty_page", "forwarded", "kept")
# How long the code of an offer that is over is forgiven a typing error.
CODES_KNOWN_FOR = timedelta(days=2)
# What the database's indices take of a text that somebody else has made up.
ID_AT_MOST = 200
ADDRESS_AT_MOST = 254
# Of the words in a text, those that are looked up as codes.
CODES_AT_MOST = 5

_WORD = re.compile(r"[A-Za-z0-9]+")

_REPEATED = sql("""
    SELECT FROM inbound
    WHERE sender = :sender AND channel = :channel AND provider_id LIKE :ours || '%'
      AND received_at > now() - CAST(:within AS interval)
    LIMIT 1
""")
_LOCK = sql("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:id AS text), 0))")
_KEEP = sql("""
    INSERT INTO inbound
        (id, channel, kind, provider_id, sender, body, meaning, why, offer_id, district)
    VALUES
        (:id, :channel, :kind, :provider_id, :sender, :body, :meaning, :why, :offer, :district)
    ON CONFLICT (channel, provider_id) DO NOTHING
    RETURNING id
""")
_SAID_BEFORE = sql("""
    SELECT count(*) AS n FROM inbound
    WHERE sender = :sender AND meaning = :meaning
      AND (why IS NOT DISTINCT FROM 'not_proven') = CAST(:doubted AS boolean)
      AND received_at > now() - CAST(:within AS interval)
""")
_WRITTEN_TO = sql("""
    SELECT FROM messages WHERE lower(email) = lower(:address) AND purpose <> 'question' LIMIT 1
""")
# However long ago they were asked: by their newest address, one row for each volunteer.
_WHO = sql("""
    SELECT DISTINCT ON (volunteer_id) volunteer_id, district, phone, email, language, made
    FROM asked WHERE phone = :address OR lower(email) = lower(:address)
    ORDER BY volunteer_id, asked_at DESC
""")
_STOP = sql("""
    INSERT INTO stops (address, kind)
    SELECT address, :kind FROM unnest(CAST(:addresses AS text[])) AS address ORDER BY address
    ON CONFLICT DO NOTHING RETURNING address
""")
_START = sql("""
    DELETE FROM stops WHERE address = ANY (CAST(:addresses AS text[])) AND kind = :kind
    RETURNING address
""")


_FORGET = (
    sql("DELETE FROM inbound WHERE received_at < now() - CAST(:older_than AS interval)"),
    sql("DELETE FROM receipts WHERE received_at < now() - CAST(:older_than AS interval)"),
)


async def forget(session: AsyncSession, *, older_than: timedelta) -> None:
    """Delete what came in long ago: texts as they were written, and receipts."""
    for statement in _FORGET:
        await execute(session, statement, {"older_than": older_than})
    await reported_by.forget(session, older_than=older_than)


@dataclass(frozen=True)
class Heard:
    """A text as it came through a door.

    ``raw`` is kept, ``text`` are the sender's own words in it, ``code`` is an answer code that
    stood elsewhere (in a subject). ``nobody`` says why no person wrote it: it is kept, and that is
    all. Without a ``provider_id`` the same text within a minute is a repetition. What is not
    ``proven`` may be in somebody else's name: it does nothing, and is asked back at most.
    """

    channel: str
    kind: Kind
    provider_id: str | None
    sender: str
    text: str
    raw: str
    code: str | None = None
    nobody: str | None = None
    proven: bool = True


@dataclass(frozen=True)
class Sender:
    """Who wrote, by the one address that they wrote from."""

    phone: str | None
    email: str | None

    @property
    def address(self) -> str:
        """The number in E.164, or the e-mail address."""
        return self.phone or self.email or ""

    def was_asked(self, row: Row) -> bool:
        """Whether this offer or test went to this address."""
        if self.phone is not None:
            return bool(row.phone == self.phone)
        return (row.email or "").lower() == (self.email or "").lower()


@dataclass(frozen=True)
class Decision:
    """What a text is taken for. ``meaning`` is a word of :data:`reading.Meaning`, or
    ``sign_of_life``, or ``ignored``; ``about`` the offer or test that it is about; with ``ask``
    there are ``why`` and the ``codes`` to choose from; ``drill``: nothing of it is real;
    ``last_day`` off comes with ``off_duty``."""

    meaning: str
    why: str | None = None
    about: Row | None = None
    codes: tuple[str, ...] = ()
    drill: bool = False
    last_day: date | None = None


async def take(session: AsyncSession, heard: Heard, *, office: Office) -> bool:
    """Keep a text and let it have its effect; False if it came before and has had it."""
    sender = sender_of(heard)
    known = await asked.of(session, sender.address) if sender else []
    reading = spoken_to = None
    if sender is None or heard.nobody is not None:
        decision = Decision("ignored", heard.nobody or "sender_is_no_address")
    else:
        reading, coded = await _read(session, heard, sender, known)
        decision = decide(reading, live=_live(known), coded=coded)
        if not heard.proven:
            # What it says is kept with it; of whom and of what is not said to whoever this is.
            decision = Decision("ask", NOT_PROVEN)
        if decision.meaning == "ask" and decision.why == "no_offer":
            spoken_to, decision = await _about_no_offer(
                session, heard, sender, reading, known, office
            )
        if decision.meaning == "off_duty":
            today = (await now(session)).astimezone(_zone(office, known)).date()
            decision = _days_off(reading, today)
    asked_before = 0
    if decision.meaning in LIMITED and sender is not None:
        asked_before = await _said_before(session, sender, decision)
    inbound_id = await _keep(
        session, heard, sender, decision, district=spoken_to.district if spoken_to else None
    )
    if inbound_id is None:
        return False
    INBOUND.labels(heard.channel, decision.meaning).inc()
    if reading is not None and sender is not None:
        # An address that anybody may have put there: nothing goes to whom we never wrote to.
        stranger = heard.kind == "email" and not known
        silent = stranger and not await _was_written_to(session, sender)
        writer = _Writer(session, office, heard, sender, inbound_id, known, spoken_to, silent)
        await _take_effect(writer, decision, reading, asked_before=asked_before)
    return True


def _live(known: Sequence[Row]) -> list[Row]:
    """Of what somebody was asked, what waits for their answer."""
    return [row for row in known if row.state != "ended"]


async def _take_effect(
    writer: "_Writer", decision: Decision, reading: Reading, *, asked_before: int
) -> None:
    """Let follow from a text what it was taken for; ``asked_before`` is how often, of late, the
    same was said back to its sender."""
    heard = writer.heard
    await _signs_of_life(writer, decision, _live(writer.known) if heard.proven else [])
    if decision.meaning == "ask":
        if asked_before < (QUESTIONS_AT_MOST if heard.proven else DOUBTS_AT_MOST):
            await _ask(writer, decision)
    elif decision.meaning in ("forwarded", "kept") and writer.spoken_to is not None:
        await _to_the_officer(writer, decision, writer.spoken_to, thanked=asked_before)
    elif decision.meaning in ("stop", "start"):
        await _opt(writer, out=decision.meaning == "stop")
    elif decision.meaning == "off_duty" and decision.last_day is not None:
        await _off_duty(writer, decision.last_day)
    elif decision.meaning == "duty_page" and asked_before < QUESTIONS_AT_MOST:
        await answers.ask_duty_page(
            writer.session, writer.themselves, district=writer.district, channel=heard.channel
        )
    elif decision.meaning in get_args(Answer) and decision.about is not None:
        await _answer(writer, decision, reading)


# --- what it is taken for ----------------------------------------------------------------------


async def _read(
    session: AsyncSession, heard: Heard, sender: Sender, known: Sequence[Row]
) -> tuple[Reading, Row | None]:
    """What the text says, and what its code is of: the sender's own first, else somebody else's."""
    moment = await now(session)
    near = [
        row.answer_code
        for row in known
        if row.state != "ended" or row.asked_at > moment - CODES_KNOWN_FOR
    ]
    reading = classify(heard.text, codes=near)
    found: dict[str, Row] = {}
    if reading.code is None or reading.code not in near:
        found = await _codes_in(session, heard.text, sender)
        if found:
            reading = classify(heard.text, codes=[*near, *found])
    # Not every word that is somebody's code was meant as one: the parser knows "BERES" as a word.
    code = reading.code
    if code is None and reading.why != "two_codes":
        code = heard.code  # only a hint: nobody has typed it
    if code is None:
        return reading, None
    return reading, found.get(code) or await _with_code(session, code, sender)


async def _codes_in(session: AsyncSession, text: str, sender: Sender) -> dict[str, Row]:
    """The words of a text that are codes of offers, whosever they are."""
    words = dict.fromkeys(
        word
        for word in map(normalised, _WORD.findall(text[:1000]))
        if len(word) == 5 and set(word) <= set(ALPHABET)
    )
    found = {}
    for word in list(words)[:CODES_AT_MOST]:
        row = await _with_code(session, word, sender)
        if row is not None:
            found[word] = row
    return found


async def _with_code(session: AsyncSession, code: str, sender: Sender) -> Row | None:
    rows = await asked.with_code(session, code)
    own = next((row for row in rows if sender.was_asked(row)), None)
    # A test of reachability is about an address: from another one its code says nothing.
    return own or next((row for row in rows if row.kind == "offer"), None)


def decide(reading: Reading, *, live: Sequence[Row], coded: Row | None) -> Decision:
    """What a text is taken for: ``live`` is what its sender can answer, ``coded`` what its code is
    of."""
    if reading.meaning in ("stop", "start", "off_duty", "duty_page"):
        return Decision(reading.meaning)
    if coded is not None and coded.kind == "ping":
        return Decision("sign_of_life", about=coded)
    if coded is not None:
        return Decision(reading.meaning, reading.why, coded, (coded.answer_code,), coded.drill)
    can_answer = [row for row in live if row.kind == "offer"]
    if reading.code is not None and can_answer:
        # A code that nobody has: a slip of the thumb in it could mean any of theirs.
        return _asking("which_offer" if len(can_answer) > 1 else "not_understood", can_answer)
    return _without_code(reading, live)


async def _about_no_offer(
    session: AsyncSession,
    heard: Heard,
    sender: Sender,
    reading: Reading,
    known: Sequence[Row],
    office: Office,
) -> tuple[officers.Writer, Decision]:
    """What becomes of words for which no offer waits, by who has written them."""
    asked_once = known or await execute(session, _WHO, {"address": sender.address})
    writer = await officers.who_writes(
        session,
        sender.address,
        heard.text,
        volunteer=asked_once[0] if asked_once else None,
        office=office,
    )
    if not writer.forwarded:
        return writer, Decision("ask", "no_offer" if writer.role == "volunteer" else writer.role)
    if reading.why == "empty":
        return writer, Decision("ask", "nothing_said")
    if not officers.officers_of(office.routes.districts.get(writer.district)):
        log.warning("words.no_officer", district=writer.district)
        return writer, Decision("kept", "no_officer")
    if not await officers.may_forward(session, sender.address, writer, office=office):
        return writer, Decision("kept", "too_many")
    return writer, Decision("forwarded", writer.role)


def _days_off(reading: Reading, today: date) -> Decision:
    """Days off whose end is not clear, is over or is far away are asked back, and so are those that
    begin later: they would begin at once, and take a volunteer away who is there today."""
    leave = reading.leave
    last_day = leave.until(today) if leave else None
    if leave is None or last_day is None or leave.since(today) != today:
        return Decision("ask", "leave")
    return Decision("off_duty", last_day=last_day)


def _zone(office: Office, known: Sequence[Row]) -> ZoneInfo:
    """The time zone in which somebody says "tomorrow": of the district in which they were asked."""
    districts = office.routes.districts
    district = districts.get(known[0].district if known else office.home)
    return ZoneInfo(district.timezone) if district else ZoneInfo("UTC")


def _without_code(reading: Reading, live: Sequence[Row]) -> Decision:
    pings = [row for row in live if row.kind == "ping"]
    held = [row for row in live if row.kind == "offer" and row.state in HELD]
    opened = [row for row in live if row.kind == "offer" and row.state not in HELD]
    if not held and not opened:
        if pings:
            return Decision("sign_of_life", about=pings[0])
        return Decision("ask", reading.why if reading.why == "wrong_number" else "no_offer")
    if reading.meaning == "ask":
        return _asking(reading.why, held + opened)
    if reading.meaning in ("accept", "decline"):
        # "YA" may as well be meant for the test.
        fitting = opened + (pings if opened and reading.meaning == "accept" else [])
    else:
        fitting = held
    candidates = fitting or held + opened
    if len(candidates) > 1:
        return _asking("which_offer", candidates)
    (one,) = candidates
    return Decision(reading.meaning, reading.why, one, (one.answer_code,), one.drill)


def _asking(why: str | None, rows: Sequence[Row]) -> Decision:
    about = rows[0] if len(rows) == 1 else None
    drill = all(row.drill for row in rows)
    return Decision("ask", why, about, tuple(row.answer_code for row in rows), drill)


def sender_of(heard: Heard) -> Sender | None:
    """Who wrote; None for what is no address that could be answered, such as "TELKOMSEL"."""
    address = heard.sender.strip()[:ADDRESS_AT_MOST]
    if heard.kind == "email" or (heard.channel == "sandbox" and "@" in address):
        return Sender(None, address) if re.fullmatch(r"[^@\s]+@[^@\s]+", address) else None
    try:
        return Sender(e164(address), None)
    except PhoneError:
        # Whatever has a fake phone can write from it.
        return Sender(address, None) if heard.channel == "sandbox" and address else None


# --- keeping -----------------------------------------------------------------------------------


async def _keep(
    session: AsyncSession,
    heard: Heard,
    sender: Sender | None,
    decision: Decision,
    *,
    district: str | None = None,
) -> UUID | None:
    """Store what came, with what it was taken for; None if it came before."""
    address = sender.address if sender else storable(heard.sender.strip())[:ADDRESS_AT_MOST]
    body = storable(heard.raw)
    provider_id = heard.provider_id and storable(heard.provider_id)
    said = _digest(f"{heard.channel}\n{address}\n{heard.text}")
    if not provider_id:
        about = {"channel": heard.channel, "sender": address, "ours": f"ours-{said}-"}
        # Two of them at the same moment see each other.
        await execute(session, _LOCK, {"id": f"jangkau:inbound:{said}"})
        if await execute(session, _REPEATED, about | {"within": REPEATED_WITHIN}):
            return None
        provider_id = f"ours-{said}-{uuid7()}"
    elif heard.channel == "sms":
        # A telephone that is a gateway counts from the beginning after a new installation.
        provider_id = f"{provider_id[: ID_AT_MOST - len(said) - 1]}-{said}"
    elif len(provider_id) > ID_AT_MOST:
        provider_id = _digest(provider_id)
    kept = {
        "id": uuid7(),
        "channel": heard.channel,
        "kind": heard.kind,
        "provider_id": provider_id,
        "sender": address,
        "body": body,
        "meaning": decision.meaning,
        "why": decision.why,
        "offer": decision.about.offer_id if decision.about else None,
        "district": district,
    }
    return kept["id"] if await execute(session, _KEEP, kept) else None  # type: ignore[return-value]


async def _was_written_to(session: AsyncSession, sender: Sender) -> bool:
    """Whether we have ever begun to write to this address: to a coordinator, a reporter."""
    return bool(await execute(session, _WRITTEN_TO, {"address": sender.address}))


async def _said_before(session: AsyncSession, sender: Sender, decision: Decision) -> int:
    # Whoever writes in somebody's name does not use up their questions.
    values = {
        "sender": sender.address,
        "meaning": decision.meaning,
        "doubted": decision.why == NOT_PROVEN,
        "within": QUESTIONS_WITHIN,
    }
    ((count,),) = await execute(session, _SAID_BEFORE, values)
    return int(count)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


# --- what follows from it ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Writer:
    """Somebody who wrote, and how they are answered."""

    session: AsyncSession
    office: Office
    heard: Heard
    sender: Sender
    inbound_id: UUID
    known: Sequence[Row]
    # Who they are, where no offer waits for them.
    spoken_to: officers.Writer | None = None
    silent: bool = False

    @property
    def language(self) -> str:
        if self.spoken_to is not None:
            return self.spoken_to.language
        return self.known[0].language if self.known else "id"

    @property
    def volunteer_id(self) -> UUID:
        """Who they are; somebody who was never asked is nobody's volunteer, whatever they know."""
        if self.known:
            return UUID(str(self.known[0].volunteer_id))
        return uuid5(NAMESPACE_URL, f"jangkau:sender:{self.sender.address.lower()}")

    @property
    def district(self) -> str:
        if self.spoken_to is not None:
            return self.spoken_to.district
        if self.known:
            return str(self.known[0].district)
        return self.office.home

    @property
    def themselves(self) -> answers.Writer:
        """Whose words these are, and where the sentence back goes."""
        return answers.Writer(self.volunteer_id, self.sender.phone, self.sender.email)

    async def say(
        self,
        purpose: str,
        written: Texts,
        *,
        about: Row | None = None,
        urgent: bool = True,
        heeds_stop: bool = True,
    ) -> None:
        """Answer by the way that they came; not at all where that could be anybody's address."""
        if self.silent:
            return
        letter = Letter(
            event_id=self.inbound_id,
            subject=about.case_id if about else self.volunteer_id,
            district=about.district if about else self.district,
            drill=about.drill if about else False,
            purpose=purpose,
            recipient=str(self.volunteer_id) if self.known else f"unknown:{self.sender.address}",
            phone=self.sender.phone,
            email=self.sender.email,
            texts=written,
            send_before=await now(self.session) + REPLY_LIFE,
            # Nobody spends a district's budget by writing to it.
            urgent=urgent and bool(self.known),
            preferred=self.heard.kind,
            offer_id=about.offer_id if about else None,
            answer_code=about.answer_code if about else None,
            heeds_stop=heeds_stop,
        )
        await self.office.send(self.session, [letter])


async def _answer(writer: _Writer, decision: Decision, reading: Reading) -> None:
    about, sender = decision.about, writer.sender
    assert about is not None  # noqa: S101 - an answer is about something
    own = sender.was_asked(about)
    form, code_typed = answers.form_of(reading, about.answer_code)
    await answers.give(
        writer.session,
        offer_id=about.offer_id,
        answer=decision.meaning,  # type: ignore[arg-type]
        outcome=reading.outcome if decision.meaning == "done" else None,
        words=reading.words or None,
        channel=writer.heard.channel,
        writer=answers.Writer(
            volunteer_id=about.volunteer_id if own else writer.volunteer_id,
            phone=sender.phone,
            email=sender.email,
        ),
        form=form,
        code_typed=code_typed,
    )


async def _to_the_officer(
    writer: _Writer, decision: Decision, spoken_to: officers.Writer, *, thanked: int
) -> None:
    """Hand the words on, if there are not too many, and thank; not for ever, as it may be a
    machine."""
    report = spoken_to.report
    if decision.meaning == "forwarded":
        await officers.forward(
            writer.session,
            inbound_id=writer.inbound_id,
            subject=writer.volunteer_id,
            address=writer.sender.address,
            text=storable(writer.heard.text),
            writer=spoken_to,
            office=writer.office,
        )
    if thanked < (QUESTIONS_AT_MOST if decision.meaning == "forwarded" else 1):
        role = spoken_to.role if decision.meaning == "forwarded" else "kept"
        written = texts.thanks(
            role,
            report.code if report else None,
            language=writer.language,
            drill=bool(report and report.drill),
        )
        await writer.say("thanks", written, urgent=False)


async def _off_duty(writer: _Writer, last_day: date) -> None:
    await answers.off_duty(
        writer.session,
        writer.themselves,
        district=writer.district,
        last_day=last_day,
        words=storable(writer.heard.text),
        channel=writer.heard.channel,
    )


async def _ask(writer: _Writer, decision: Decision) -> None:
    about = decision.about
    written = texts.ask(
        decision.why or "not_understood",
        about.answer_code if about else None,
        language=writer.language,
        codes=decision.codes,
        officer=writer.spoken_to.call if writer.spoken_to else None,
        drill=decision.drill,
    )
    await writer.say("question", written, about=about)


async def _signs_of_life(writer: _Writer, decision: Decision, live: Sequence[Row]) -> None:
    """Whoever writes can be reached, whatever they write: all tests of this address are passed."""
    pings = {row.offer_id: row for row in live if row.kind == "ping"}
    about = decision.about if decision.meaning == "sign_of_life" else None
    if about is not None:
        pings[about.offer_id] = about
    if not pings:
        return
    await answers.alive(
        writer.session,
        list(pings.values()),
        words=storable(writer.heard.text),
        channel=writer.heard.channel,
    )
    if about is not None:
        written = texts.ping_answered(
            about.made["volunteer"]["name"], language=writer.language, drill=about.drill
        )
        await writer.say("ping_answered", written, about=about, urgent=False)


# --- stop and start ----------------------------------------------------------------------------


async def _opt(writer: _Writer, *, out: bool) -> None:
    """Write nothing more to this address by this kind of channel, or do so again."""
    session, sender, kind = writer.session, writer.sender, writer.heard.kind
    who = await execute(session, _WHO, {"address": sender.address})
    # As it is written wherever we know it from: an e-mail address may have capitals.
    addresses = {sender.address, *(row.email for row in who if row.email and not sender.phone)}
    values = {"addresses": sorted(addresses), "kind": kind}
    changed = await execute(session, _STOP if out else _START, values)
    if changed and out:
        await messages.heed_stop(session, sorted(addresses), kind, routes=writer.office.routes)
    if changed:
        await _tell(writer, who, out=out)
    elif out:
        return  # they have been told once
    say = texts.stopped if out else texts.started
    await writer.say(
        "stopped" if out else "started",
        say(language=who[0].language if who else writer.language, drill=False),
        heeds_stop=False,
    )


async def _tell(writer: _Writer, who: Sequence[Row], *, out: bool) -> None:
    """Assignment hears of each volunteer; the coordinators of one who is lost to us."""
    session, routes = writer.session, writer.office.routes
    moment = await now(session)
    barred = await stopped(session, (a for row in who for a in (row.phone, row.email)))
    for row in who:
        left = routes.of(district=row.district, phone=row.phone, email=row.email, stopped=barred)
        event: VolunteerStopped = VolunteerStopped.of(
            StoppedVolunteer(
                volunteer_id=row.volunteer_id,
                channel=writer.heard.kind,
                stopped=out,
                reachable=bool(left),
            ),
            case_id=row.volunteer_id,
            district=row.district,
            time=moment,
        )
        await outbox.publish(session, [event])
        if out and not left:
            log.warning("volunteer.unreachable", volunteer=str(row.volunteer_id))
            await _warn_coordinators(writer, row, event)


async def _warn_coordinators(writer: _Writer, row: Row, event: VolunteerStopped) -> None:
    district = writer.office.routes.districts.get(row.district)
    if district is None:
        return
    # Where they live, nobody here knows; where they were asked to go last, is near.
    place = (row.made or {}).get("place") or {}
    told = district.policy.coordinators_of(place.get("subdistrict", ""))
    volunteer = (row.made or {}).get("volunteer") or {}
    name = volunteer.get("name", "")
    letters = [
        to_coordinator(
            one,
            about=event,
            purpose="unreachable",
            written=texts.volunteer_unreachable(name, row.phone or row.email, one),
        )
        for one in of_policy(told or district.policy.coordinators)
    ]
    await writer.office.send(writer.session, letters)
