"""What intake does when something happened elsewhere."""

from sqlmodel.ext.asyncio.session import AsyncSession

from services.intake import reports
from shared.events import PublicCaseOffered, PublicCaseOpened, PublicCaseWaiting


async def on_public_cases(
    session: AsyncSession, changes: list[PublicCaseOpened | PublicCaseOffered | PublicCaseWaiting]
) -> None:
    """Keep what reporters may see of their case."""
    await reports.remember_states(session, changes)
