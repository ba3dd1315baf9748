"""What notification does when something happened elsewhere."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import asked, letters, messages, offers, reported_by
from services.notification.letters import SILENT_REASONS, Letter, LinkTo
from services.notification.reporters import within_limits
from services.notification.routes import Routes
from shared.consume import Handler
from shared.districts import Districts
from shared.events import (
    AnswerJudged,
    CaseEscalated,
    CaseProgressed,
    CaseReported,
    CasesHeld,
    DutyAnswered,
    Event,
    OfferAssigned,
    OfferClosed,
    OfferMade,
    VolunteerPinged,
)

# The order in which the kinds of one wave are gone through: as they mostly come for one case, so
# that a batch is mostly one wave.
KINDS: tuple[tuple[type[Event[Any]], ...], ...] = (
    (AnswerJudged,),
    (OfferClosed,),
    (OfferMade, OfferAssigned, VolunteerPinged),
    (CaseEscalated, CasesHeld, CaseProgressed, DutyAnswered),
)
RANK = {kind: rank for rank, kinds in enumerate(KINDS) for kind in kinds}


@dataclass(frozen=True)
class Office:
    """What every letter needs: how people are reached, and where they answer."""

    routes: Routes
    link: LinkTo
    districts: Districts
    # Whose officers hear of strangers; unsaid: those of the first district by its code.
    strangers: str | None = None
    # Of the words of reporters and strangers so many an hour reach the officers: from one sender,
    # and in all of a district. What is more is kept and counted.
    forwarded_each: int = 5
    forwarded_in_all: int = 30

    @property
    def home(self) -> str:
        """The district to which whoever wrote belongs as long as nothing else is known of them."""
        known = self.routes.districts
        if self.strangers is not None and self.strangers in known:
            return self.strangers
        return min(known, default="")

    async def send(self, session: AsyncSession, written: Sequence[Letter]) -> None:
        """Store the letters; they go out after the commit."""
        await messages.queue(session, written, routes=self.routes)

    async def to_reporters(self, session: AsyncSession, written: Sequence[Letter]) -> None:
        """The same, as many as one person is to get in a day."""
        await self.send(session, await within_limits(session, written, routes=self.routes))


def on_intake_cases(office: Office) -> Handler:
    """Tell reporters that their report has come in, and know them when they write again."""

    async def handle(session: AsyncSession, events: list[CaseReported]) -> None:
        await reported_by.remember(session, events)
        written = map(letters.acknowledgement, events)
        await office.to_reporters(session, [letter for letter in written if letter])

    return handle


def on_assignment_offers(office: Office) -> Handler:
    """Messages for what has happened to offers, stored before any provider is called."""

    async def handle(session: AsyncSession, events: list[Event[Any]]) -> None:
        for wave in waves(events):
            await _judged(session, [e for e in wave if isinstance(e, AnswerJudged)], office)
            await _closed(session, [e for e in wave if isinstance(e, OfferClosed)], office)
            await _asked(session, [e for e in wave if isinstance(e, asked.ASKING)], office)
            await _escalated(session, [e for e in wave if isinstance(e, CaseEscalated)], office)
            await _held(session, [e for e in wave if isinstance(e, CasesHeld)], office)
            await _progressed(session, [e for e in wave if isinstance(e, CaseProgressed)], office)
            await _on_duty(session, [e for e in wave if isinstance(e, DutyAnswered)], office)

    return handle


def waves(events: Iterable[Event[Any]]) -> list[list[Event[Any]]]:
    """Split a batch so that going through each wave kind by kind keeps the order of every case.

    An event goes into the wave of the one before it of its case, or, if its kind would be gone
    through before that one's there, into the next. Five hundred cases are as few waves as one.
    """
    found: list[list[Event[Any]]] = []
    last: dict[UUID, tuple[int, int]] = {}
    for event in events:
        wave, rank = last.get(event.subject, (0, 0))
        if RANK[type(event)] < rank:
            wave += 1
        last[event.subject] = wave, RANK[type(event)]
        if wave == len(found):
            found.append([])
        found[wave].append(event)
    return found


async def _asked(session: AsyncSession, events: Sequence[asked.Asking], office: Office) -> None:
    """One message for each who is asked; a case that was assigned is its volunteer's already."""
    given = [event for event in events if isinstance(event, OfferAssigned)]
    await offers.hear(session, {event.data.offer_id: "accepted" for event in given})
    await asked.remember(session, events)
    await office.send(session, [_asking(event, office.link) for event in events])


def _asking(event: asked.Asking, link: LinkTo) -> Letter:
    match event:
        case OfferMade():
            return letters.offer(event, link=link)
        case OfferAssigned():
            return letters.assigned(event, link=link)
        case VolunteerPinged():
            return letters.ping(event, link=link)


async def _closed(session: AsyncSession, events: Sequence[OfferClosed], office: Office) -> None:
    """Nothing more about these offers; whoever was asked hears that they need not come."""
    await offers.hear(session, {event.data.offer_id: "ended" for event in events})
    await asked.note_outcomes(session, {e.data.offer_id: e.data.reason for e in events})
    to_tell = [event for event in events if event.data.reason not in SILENT_REASONS]
    if to_tell:
        told = await offers.told(session, (event.data.offer_id for event in to_tell))
        written = [letters.closing(event) for event in to_tell if event.data.offer_id in told]
        await office.send(session, written)


async def _judged(session: AsyncSession, events: Sequence[AnswerJudged], office: Office) -> None:
    """Every answer gets a sentence back, if somebody can be told."""
    await offers.hear(session, offers.judged(events))
    await asked.tell_reporters(
        session, {e.data.offer_id: e.data.reporter for e in events if e.data.reporter}
    )
    # Afterwards: an acceptance may have been taken back in the same batch.
    over = offers.endings(events)
    await asked.note_outcomes(session, over)
    written = (
        letters.reply(event, link=office.link, over=event.data.offer_id in over) for event in events
    )
    await office.send(session, [letter for letter in written if letter])


async def _escalated(
    session: AsyncSession, events: Sequence[CaseEscalated], office: Office
) -> None:
    """One message to each coordinator."""
    await office.send(session, list(chain.from_iterable(map(letters.escalations, events))))


async def _held(session: AsyncSession, events: Sequence[CasesHeld], office: Office) -> None:
    """One message to each duty officer, however many reports there are."""
    await office.send(session, list(chain.from_iterable(map(letters.held, events))))


async def _progressed(
    session: AsyncSession, events: Sequence[CaseProgressed], office: Office
) -> None:
    """The reporter hears that somebody comes, and of the end."""
    written = map(letters.progress, events)
    await office.to_reporters(session, [letter for letter in written if letter])


async def _on_duty(session: AsyncSession, events: Sequence[DutyAnswered], office: Office) -> None:
    """What became of days off, or the link to the duty page."""
    await office.send(session, [letter for letter in map(letters.duty, events) if letter])
