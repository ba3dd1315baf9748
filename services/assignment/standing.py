"""Whether a volunteer can be asked now, and why not: said alike in lists, in JSON and on their own
page. Pure; `matching._CANDIDATES` asks the same of the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.assignment.models import Volunteer
from shared.districts import District
from shared.policy import OPEN_OFFERS

WhyNot = Literal[
    "off_duty",
    "wants_no_messages",
    "away",
    "resting",
    "outside_duty_times",
    "full",
    "many_offers",
]


@dataclass(frozen=True)
class Standing:
    """``why_not`` is None if they can be asked. ``until`` is when that changes by itself, as at the
    end of a rest; None if it does not."""

    why_not: WhyNot | None
    until: datetime | None = None


def standing(volunteer: Volunteer, *, moment: datetime, most_offers: int = OPEN_OFFERS) -> Standing:
    """How a volunteer stands at ``moment``; ``most_offers`` is of their district's policy."""
    if not volunteer.on_duty:
        return Standing("off_duty")
    if not volunteer.reachable:
        return Standing("wants_no_messages")
    until = volunteer.ready_changes_at
    if not volunteer.ready:
        waits: list[tuple[datetime, WhyNot]] = []
        if volunteer.off_until is not None and volunteer.off_until > moment:
            waits.append((volunteer.off_until, "away"))
        if volunteer.rest_until is not None and volunteer.rest_until > moment:
            waits.append((volunteer.rest_until, "resting"))
        return Standing(max(waits)[1] if waits else "outside_duty_times", until)
    if volunteer.open_cases >= volunteer.capacity:
        return Standing("full")
    if volunteer.open_offers >= most_offers:
        return Standing("many_offers")
    return Standing(None, until)


def most_offers(volunteer: Volunteer, districts: Mapping[str, District]) -> int:
    """How many unanswered offers they may have, as their district says."""
    district = districts.get(volunteer.district)
    return district.policy.open_offers if district else OPEN_OFFERS
