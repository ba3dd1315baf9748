"""Intake: takes reports, answers for them, and publishes ``case.reported``."""

from functools import partial

from services.intake import api, handlers, limits, reports
from services.intake.settings import IntakeSettings
from shared import limit_storage, topics
from shared.districts import Districts
from shared.service import Service


def compose(settings: IntakeSettings | None = None) -> Service:
    """The whole service on one screen."""
    settings = settings or IntakeSettings()
    districts = Districts(settings.district_folders)
    service = Service(
        name="intake",
        settings=settings,
        title="Jangkau intake",
        description="Report a person in need; see what became of it.",
    )
    service.routers = [api.router(service.database, districts=districts, settings=settings)]
    service.consume(topics.PUBLIC_CASES, handlers.on_public_cases)
    service.keep_districts(districts)
    service.purges = [
        partial(reports.forget_callers, after=limits.longest_window(settings)),
        limit_storage.purge,
    ]
    return service
