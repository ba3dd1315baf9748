"""What notification does when something happened elsewhere."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import delivery, letters, offers
from services.notification.channels import Channel
from services.notification.letters import SILENT_REASONS
from shared.consume import Handler
from shared.events import (
    AnswerJudged,
    CaseEscalated,
    Event,
    OfferAssigned,
    OfferClosed,
    OfferMade,
)

# The order in which the kinds of one wave are gone through: as they mostly come for one case, so
# that a batch is mostly one wave.
KINDS: tuple[tuple[type[Event[Any]], ...], ...] = (
    (AnswerJudged,),
    (OfferClosed,),
    (OfferMade, OfferAssigned),
    (CaseEscalated,),
)
RANK = {kind: rank for rank, kinds in enumerate(KINDS) for kind in kinds}


def on_assignment_offers(channels: Sequence[Channel]) -> Handler:
    """Messages for what has happened to offers, stored before any provider is called."""

    async def handle(session: AsyncSession, events: list[Event[Any]]) -> None:
        for wave in waves(events):
            await _judged(session, [e for e in wave if isinstance(e, AnswerJudged)], channels)
            await _closed(session, [e for e in wave if isinstance(e, OfferClosed)], channels)
            await _made(
                session, [e for e in wave if isinstance(e, OfferMade | OfferAssigned)], channels
            )
            await _escalated(session, [e for e in wave if isinstance(e, CaseEscalated)], channels)

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


async def _made(
    session: AsyncSession,
    events: Sequence[OfferMade | OfferAssigned],
    channels: Sequence[Channel],
) -> None:
    """One message for each offer; a case that was assigned is its volunteer's already."""
    given = [event for event in events if isinstance(event, OfferAssigned)]
    await offers.hear(session, {event.data.offer_id: "accepted" for event in given})
    written = [
        letters.assigned(event) if isinstance(event, OfferAssigned) else letters.offer(event)
        for event in events
    ]
    await delivery.queue(session, written, channels=channels)


async def _closed(
    session: AsyncSession, events: Sequence[OfferClosed], channels: Sequence[Channel]
) -> None:
    """Nothing more about these offers; whoever was asked hears that they need not come."""
    await offers.hear(session, {event.data.offer_id: "ended" for event in events})
    to_tell = [event for event in events if event.data.reason not in SILENT_REASONS]
    if to_tell:
        told = await offers.told(session, (event.data.offer_id for event in to_tell))
        written = [letters.closing(event) for event in to_tell if event.data.offer_id in told]
        await delivery.queue(session, written, channels=channels)


async def _judged(
    session: AsyncSession, events: Sequence[AnswerJudged], channels: Sequence[Channel]
) -> None:
    """Every answer gets a sentence back, if somebody can be told."""
    await offers.hear(session, offers.judged(events))
    written = [letter for event in events if (letter := letters.reply(event))]
    await delivery.queue(session, written, channels=channels)


async def _escalated(
    session: AsyncSession, events: Sequence[CaseEscalated], channels: Sequence[Channel]
) -> None:
    """One message to each coordinator."""
    written = list(chain.from_iterable(letters.escalations(event) for event in events))
    await delivery.queue(session, written, channels=channels)
