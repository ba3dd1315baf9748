"""Beside a broken district the other still takes a report through to a message."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.assignment import loop
from services.assignment.app import compose as compose_assignment
from services.assignment.handlers import on_intake_cases
from services.assignment.settings import AssignmentSettings
from services.intake.app import compose as compose_intake
from services.intake.settings import IntakeSettings
from services.notification.app import compose as compose_notification
from services.notification.settings import NotificationSettings
from shared import instances, topics
from shared.consume import Consumer
from shared.database import Database
from shared.districts import Districts
from shared.events import Event, OfferMade
from shared.records import Received
from shared.settings import Settings
from tests.broken_districts import BREAKAGES, BROKEN, PROJECT, WORKS, district, good_district
from tests.conftest import MakeSettings
from tests.factories import case_reported
from tests.integration.cases import volunteer
from tests.integration.conftest import Door, one, open_door, rows, run
from tests.integration.sending import Senders
from tests.unit.test_policy import POLICY

TOKEN = "the agency's own of this test"


@dataclass
class Installation:
    """All three services over one folder of districts, their loops asleep."""

    folder: Path
    settings: MakeSettings

    async def start(self) -> tuple[Door, Door, Senders]:
        """Compose all three, as a start of the services does."""
        where = {"districts": str(self.folder)}
        intake = open_door(
            compose_intake(await self.settings(IntakeSettings, agency_token=TOKEN, **where))
        )
        # Of the agency, which has no limits.
        intake.http.headers["authorization"] = f"Bearer {TOKEN}"
        assignment = open_door(compose_assignment(await self.settings(AssignmentSettings, **where)))
        told = await self.settings(NotificationSettings, **where)
        notification = compose_notification(told)
        for close in notification.closing:
            await close()
        return intake, assignment, Senders(notification.database, told)

    async def environment(self) -> dict[str, str]:
        """What a command needs to find it."""
        made = await self.settings(Settings)
        return {**os.environ, "COLUMNS": "80", "JANGKAU_DATABASE_URL": made.database_url,
                "JANGKAU_DISTRICTS": str(self.folder)}  # fmt: skip


@pytest.fixture
async def installation(
    settings_without_kafka: MakeSettings, tmp_path: Path
) -> AsyncIterator[Installation]:
    """The sample district; what is broken is put beside it."""
    good_district(tmp_path / "districts")
    yield Installation(tmp_path / "districts", settings_without_kafka)


def _empty(home: Path) -> None:
    for file in home.iterdir():
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    home.rmdir()


async def test_a_report_goes_through_to_a_message_beside_every_kind_of_broken_district(
    installation: Installation,
) -> None:
    for number, (kind, (act, _)) in enumerate(BREAKAGES.items(), start=1):
        home = district(installation.folder)
        act(home)
        intake, assignment, senders = await installation.start()
        # Each is asked once: what is unanswered has a limit of its own.
        await run(assignment.database, "UPDATE volunteers SET on_duty = false")
        await volunteer(assignment.database, -2.49, 106.41)
        answer = await intake.http.post(
            "/v1/reports", json={"category": "homeless", "place": {"subdistrict": "Koba"}}
        )
        assert answer.status_code == 202, kind
        await on_to_a_message(installation, intake, assignment, senders, answer.json()["case_id"])
        assert await one(senders.database, "SELECT count(*) FROM messages") == number, kind
        refused = await intake.http.post(
            "/v1/reports",
            json={"category": "homeless", "place": {"subdistrict": "99.01.002"}},
        )
        assert refused.status_code == 503, kind
        assert "District 99.01 cannot take reports at the moment" in refused.json()["detail"]
        for each in (intake, assignment, senders):
            await each.close()
        await senders.database.close()
        _empty(home)


async def on_to_a_message(
    installation: Installation, intake: Door, assignment: Door, senders: Senders, case_id: str
) -> None:
    """Let the other two services do their part, as Kafka would bring it to them."""
    (reported,) = await taken(intake, topics.INTAKE_CASES, case_id)
    districts = Districts([installation.folder], villages=False)
    async with assignment.database.transaction() as session:
        await on_intake_cases(districts)(session, [reported])
    told = await taken(assignment, topics.ASSIGNMENT_OFFERS, case_id)
    await senders.queue(*[event for event in told if isinstance(event, OfferMade)])


async def taken(door: Door, topic: topics.Topic, case_id: str) -> list[Any]:
    """What a service has published of a case to a topic."""
    found = await rows(
        door.database,
        "SELECT payload FROM outbox WHERE topic = :topic AND key = :key ORDER BY id",
        topic=topic.name,
        key=case_id,
    )
    return [topic.decode(row.payload.encode()) for row in found]


async def jangkau(installation: Installation, *arguments: str) -> tuple[int | None, str]:
    """The exit code and what a command prints."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli", *arguments),
        env=await installation.environment(),
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    answered, _ = await command.communicate()
    return command.returncode, answered.decode()


async def test_commands_work_for_the_other_district_and_name_the_broken_one(
    installation: Installation, tmp_path: Path
) -> None:
    act, told = BREAKAGES["a time zone that there is not"]
    act(district(installation.folder))
    people = str(PROJECT / "districts" / WORKS / "volunteers.csv")
    code, said = await jangkau(installation, "volunteers", "import", people)
    assert (code, said.strip()) == (0, "115 added, 0 updated.")
    code, said = await jangkau(installation, "volunteers", "import", people, "--district", BROKEN)
    assert code == 1
    assert "District 99.01 is refused until its folder is mended" in said
    assert told in said
    for command in (
        ("cases",), ("volunteers", "list"), ("volunteers", "reach"),
        ("simulate", "--generate", "5", "--seed", "1", "--volunteers", people),
        ("volunteers", "export", str(tmp_path / "out.csv")),
    ):  # fmt: skip
        code, said = await jangkau(installation, *command)
        assert code == 0, said
        if command != ("cases",):
            assert f"Left out: district 99.01 is refused: {installation.folder}" in said, said
            assert told in said


async def test_the_status_names_the_broken_district_and_why(installation: Installation) -> None:
    act, told = BREAKAGES["a time zone that there is not"]
    act(district(installation.folder))
    started = await installation.start()
    for service in (started[0].service, started[1].service):
        assert service.health.problems() == []
        async with service.database.transaction() as session:
            await instances.report(session, "one", service.health.noticed())
            await instances.report(session, "two", service.health.noticed())
        # However long the command takes to start here.
        await run(service.database, "UPDATE instances SET seen_at = now() + interval '1 h'")
    code, said = await jangkau(installation, "status")
    assert code == 1
    expected = "intake, assignment: district 99.01 is refused, and out of service: "
    assert said.count(expected) == 1
    assert told in said
    for each in started:
        await each.close()
    await started[2].database.close()


async def test_without_any_district_that_works_nothing_starts_and_says_why(
    installation: Installation,
) -> None:
    (installation.folder / WORKS / "policy.toml").unlink()
    for service in ("intake", "assignment", "notification"):
        code, said = await jangkau(installation, "serve", service)
        assert code == 2
        assert f"{service} cannot start: {installation.folder / WORKS / 'policy.toml'}" in said
        assert "is missing" in said
    code, said = await jangkau(installation, "volunteers", "list")
    assert code == 1
    assert "is missing" in said


async def test_cases_of_a_district_that_is_refused_rest_and_go_on_when_it_is_mended(
    installation: Installation,
) -> None:
    district(installation.folder)
    intake, assignment, senders = await installation.start()
    try:
        answer = await intake.http.post(
            "/v1/reports", json={"category": "homeless", "place": {"subdistrict": "99.01.002"}}
        )
        (reported,) = await taken(intake, topics.INTAKE_CASES, answer.json()["case_id"])
        well = Districts([installation.folder], villages=False)
        async with assignment.database.transaction() as session:
            await on_intake_cases(well)(session, [reported])
        await run(assignment.database, "UPDATE cases SET next_action_at = now() - interval '1 h'")
        BREAKAGES["no policy"][0](installation.folder / BROKEN)
        broken = Districts([installation.folder], villages=False)
        async with assignment.database.transaction() as session:
            assert await loop.sweep(session, districts=broken) == []
        async with assignment.database.transaction() as session:
            assert len(await loop.sweep(session, districts=well)) == 1
    finally:
        for each in (intake, assignment, senders):
            await each.close()
        await senders.database.close()


# --- what comes from Kafka about it ---------------------------------------------------------------


def record(event: Event[Any], offset: int) -> Received:
    """An event as it comes from Kafka."""
    return Received(
        event=event,
        problem=None,
        record_id=str(event.id),
        topic="intake.cases",
        partition=0,
        offset=offset,
        key=str(event.subject).encode(),
        payload=event.to_json().encode(),
        headers="[]",
    )


async def test_events_of_a_refused_district_wait_and_hold_up_no_other(
    assignment_database: Database, tmp_path: Path
) -> None:
    good_district(tmp_path)
    home = district(tmp_path)
    BREAKAGES["no policy"][0](home)
    districts = Districts([tmp_path], villages=False)
    consumer = Consumer(
        "assignment.intake_cases",
        topics.INTAKE_CASES,
        on_intake_cases(districts),
        database=assignment_database,
        max_parked_in_a_row=5,
    )
    events = [
        case_reported(district=BROKEN if number % 4 else WORKS, code=f"CASE{number:04}")
        for number in range(40)
    ]
    received = [record(event, number) for number, event in enumerate(events)]
    for start in range(0, 40, 8):
        await consumer.handle_batch(received[start : start + 8])
    opened = "SELECT count(*) FROM cases WHERE district = :district"
    assert await one(assignment_database, opened, district=WORKS) == 10
    assert await one(assignment_database, opened, district=BROKEN) == 0
    assert await one(assignment_database, "SELECT count(*) FROM dead_letters") == 0
    assert consumer.problem is None, "thirty in a row say nothing about us"
    (sentence,) = {row.error for row in await rows(assignment_database, "SELECT * FROM set_aside")}
    assert f"District 99.01 is refused until its folder is mended: {home / 'policy.toml'}" in (
        sentence
    )
    # Tried again while it is still refused, they wait on.
    await due(assignment_database)
    assert await consumer.take_up_one()
    assert await one(assignment_database, "SELECT count(*) FROM set_aside") == 30

    (home / "policy.toml").write_text(POLICY, encoding="utf-8")
    assert districts.reload() == [BROKEN]
    await due(assignment_database)
    while await consumer.take_up_one():
        pass
    assert await one(assignment_database, opened, district=BROKEN) == 30
    assert await one(assignment_database, "SELECT count(*) FROM set_aside") == 0
    assert await one(assignment_database, "SELECT count(*) FROM dead_letters") == 0


async def due(database: Database) -> None:
    """The time until the next try is over."""
    await run(database, "UPDATE set_aside SET next_try_at = now()")
