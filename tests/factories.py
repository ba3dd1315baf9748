"""Events for tests: a plausible default, and only what a test is about is said."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from shared.events import (
    CaseReported,
    Event,
    MadeOffer,
    OfferedVolunteer,
    OfferMade,
    Place,
    PublicCase,
    PublicCaseOffered,
    PublicCaseOpened,
    PublicCaseWaiting,
    PublicSubdistrict,
    ReportedCase,
)

NOON = datetime(2026, 3, 1, 5, 0, tzinfo=UTC)  # 12.00 in Bangka Tengah
DISTRICT = "19.04"
KOBA = (-2.493, 106.408)


def place(latitude: float = KOBA[0], longitude: float = KOBA[1], **values: Any) -> Place:
    """A position in Koba."""
    return Place.model_validate(
        {
            "latitude": latitude,
            "longitude": longitude,
            "approximate": False,
            "subdistrict": "19.04.01",
            "subdistrict_name": "Koba",
            "centre_latitude": KOBA[0],
            "centre_longitude": KOBA[1],
            **values,
        }
    )


def case_reported(
    latitude: float = KOBA[0],
    longitude: float = KOBA[1],
    *,
    case_id: UUID | None = None,
    district: str = DISTRICT,
    traceparent: str | None = None,
    **values: Any,
) -> CaseReported:
    """A report that has passed the gate."""
    data = {
        "code": "ABCD2345",
        "category": "homeless",
        "urgency": "normal",
        "place": place(latitude, longitude),
        "people": 1,
        "channel": "web",
        "reported_at": NOON,
        **values,
    }
    reported: CaseReported = CaseReported.of(
        ReportedCase.model_validate(data),
        case_id=case_id or uuid7(),
        district=district,
        time=NOON,
        traceparent=traceparent,
    )
    return reported


def made_offer(**values: Any) -> MadeOffer:
    """What one volunteer is asked."""
    data = {
        "offer_id": uuid7(),
        "answer_code": "K7P2M",
        "respond_by": NOON + timedelta(minutes=10),
        "volunteer": OfferedVolunteer(
            id=uuid7(), name="Siti", phone="+6281234567890", email="siti@example.org"
        ),
        "distance_m": 3200.0,
        "category": "elderly_abandoned",
        "urgency": "normal",
        "people": 1,
        "place": place(village="19.04.01.1002", village_name="Berok"),
        "utc_offset_minutes": 420,
        "reported_at": NOON,
        **values,
    }
    return MadeOffer.model_validate(data)


def offer_made(*, drill: bool = False, case_id: UUID | None = None, **values: Any) -> OfferMade:
    """An offer on its way to a volunteer, open for an hour from now."""
    values = {"respond_by": datetime.now(UTC) + timedelta(hours=1), **values}
    made: OfferMade = OfferMade.of(
        made_offer(**values), case_id=case_id or uuid7(), district=DISTRICT, time=NOON, drill=drill
    )
    return made


def public_case(
    state: str, *, version: int, case_id: UUID, waiting_for: str | None = None
) -> Event[PublicCase]:
    """One step in the public life of a case."""
    kind: type[Event[PublicCase]] = {
        "searching": PublicCaseOpened,
        "offered": PublicCaseOffered,
        "waiting": PublicCaseWaiting,
    }[state]
    data = {
        "version": version,
        "state": state,
        "category": "homeless",
        "urgency": "normal",
        "subdistrict": PublicSubdistrict(
            code="19.04.01", name="Koba", latitude=KOBA[0], longitude=KOBA[1]
        ),
        "reported_at": NOON,
        "waiting_for": waiting_for,
    }
    made: Event[PublicCase] = kind.of(
        PublicCase.model_validate(data),
        case_id=case_id,
        district=DISTRICT,
        time=NOON + timedelta(seconds=version),
    )
    return made
