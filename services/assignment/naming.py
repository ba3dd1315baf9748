"""Who is meant: a volunteer by id, phone, e-mail or name, as people say it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment.models import Volunteer
from shared.contacts import PhoneError, e164

# How many are listed of those who could be meant.
LISTED = 8


class NotOne(LookupError):
    """Nobody is meant, or several could be; the text says who."""

    def __init__(self, message: str, *, nobody: bool) -> None:
        super().__init__(message)
        self.nobody = nobody


async def named(
    session: AsyncSession, who: str, *, districts: Sequence[str] | None = None
) -> Sequence[Volunteer]:
    """Who could be meant by an id, a phone, an e-mail, a whole name, or else a part of one.

    Only of these districts, if some are given.
    """
    said = " ".join(who.split())
    for condition in _conditions(said):
        query = select(Volunteer).where(condition).order_by(col(Volunteer.name), col(Volunteer.id))
        if districts is not None:
            query = query.where(col(Volunteer.district).in_(districts))
        if found := (await session.exec(query.limit(LISTED + 1))).all():
            return found
    return []


def _conditions(said: str) -> list[Any]:
    """What is tried, the surest first."""
    try:
        return [col(Volunteer.id) == UUID(said)]
    except ValueError:
        pass
    if "@" in said:
        return [func.lower(Volunteer.email) == said.lower()]
    try:
        return [col(Volunteer.phone) == e164(said)]
    except PhoneError:
        pass
    if not any(letter.isalpha() for letter in said):
        return []
    words = [col(Volunteer.name).icontains(word, autoescape=True) for word in said.split()]
    condition = words[0]
    for word in words[1:]:
        condition = condition & word
    return [func.lower(Volunteer.name) == said.lower(), condition]


async def the_one(
    session: AsyncSession, who: str, *, districts: Sequence[str] | None = None
) -> Volunteer:
    """The volunteer who is meant.

    Raises:
        NotOne: nobody is, or several could be; then they are listed.
    """
    found = await named(session, who, districts=districts)
    if not found:
        raise NotOne(f"No volunteer has the phone, e-mail, id or name {who}.", nobody=True)
    if len(found) > 1:
        listed = "; ".join(described(one) for one in found[:LISTED])
        more = " and others" if len(found) > LISTED else ""
        raise NotOne(
            f"{who} can be several volunteers: {listed}{more}. Say which one, by phone or id.",
            nobody=False,
        )
    return found[0]


def described(volunteer: Volunteer) -> str:
    """A volunteer among others who could be meant."""
    contact = volunteer.phone or volunteer.email or "no contact"
    return f"{volunteer.name} ({volunteer.role}, {volunteer.district}, {contact}, {volunteer.id})"
