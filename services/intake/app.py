"""Intake: takes reports, answers for them, and publishes ``case.reported``."""

from services.intake import api, handlers
from services.intake.settings import IntakeSettings
from shared import topics
from shared.districts import load_districts
from shared.service import Service


def compose(settings: IntakeSettings | None = None) -> Service:
    """The whole service on one screen."""
    settings = settings or IntakeSettings()
    service = Service(
        name="intake",
        settings=settings,
        title="Jangkau intake",
        description="Report a person in need; see what became of it.",
    )
    service.routers = [
        api.router(
            service.database,
            districts=load_districts(settings.district_folders),
            public_url=settings.public_url,
        )
    ]
    service.consume(topics.PUBLIC_CASES, handlers.on_public_cases)
    return service
