"""What the integration tests share."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest

from services.assignment.app import compose as compose_assignment
from services.assignment.settings import AssignmentSettings
from services.intake.app import compose as compose_intake
from services.intake.settings import IntakeSettings
from services.notification.app import compose as compose_notification
from services.notification.settings import NotificationSettings
from shared.database import Database, execute, sql
from shared.districts import District, _with_villages
from shared.service import Service
from shared.settings import SERVICES
from tests.conftest import MakeSettings


async def rows(database: Database, query: str, **values: Any) -> list[Any]:
    """What a query finds, committed or to be seen by everybody."""
    async with database.transaction() as session:
        return await execute(session, sql(query), values)


async def one(database: Database, query: str, **values: Any) -> Any:
    """The single value that a query finds."""
    ((value,),) = await rows(database, query, **values)
    return value


async def run(database: Database, query: str, **values: Any) -> None:
    """Change something by hand."""
    async with database.transaction() as session:
        await execute(session, sql(query), values)


@dataclass
class Door:
    """A service's HTTP side inside this process, with its database."""

    service: Service
    http: httpx2.AsyncClient

    @property
    def database(self) -> Database:
        return self.service.database

    async def close(self) -> None:
        await self.http.aclose()
        for close in self.service.closing:
            await close()
        await self.service.database.close()


def open_door(service: Service) -> Door:
    """The service without its loops: what it answers is all that is looked at.

    An unexpected error becomes its answer 500, as it would for a client.
    """
    transport = httpx2.ASGITransport(app=service.app(), raise_app_exceptions=False)
    return Door(service, httpx2.AsyncClient(transport=transport, base_url="http://test"))


@pytest.fixture(scope="session", autouse=True)
def districts_are_read_once(districts: dict[str, District]) -> Iterator[None]:
    """Reading the villages of the whole country takes half a second each time."""

    read = _with_villages

    def filled(found: Mapping[str, District]) -> dict[str, District]:
        if not all(code in districts or code.startswith("99.") for code in found):
            return read(found)
        known = [village for one in districts.values() for village in one.villages]
        return {
            code: replace(
                one, villages=tuple(v for v in known if v.subdistrict in one.subdistrict_by_code)
            )
            for code, one in found.items()
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.districts._with_villages", filled)
        yield


@pytest.fixture
async def intake(settings_without_kafka: MakeSettings) -> AsyncIterator[Door]:
    """Intake with an empty database."""
    door = open_door(compose_intake(await settings_without_kafka(IntakeSettings)))
    yield door
    await door.close()


@pytest.fixture(params=SERVICES)
async def door(
    request: pytest.FixtureRequest, settings_without_kafka: MakeSettings
) -> AsyncIterator[Door]:
    """Each service in turn, without its loops."""
    make = settings_without_kafka
    match request.param:
        case "intake":
            service: Service = compose_intake(await make(IntakeSettings))
        case "assignment":
            service = compose_assignment(await make(AssignmentSettings))
        case _:
            service = compose_notification(await make(NotificationSettings))
    opened = open_door(service)
    yield opened
    await opened.close()
