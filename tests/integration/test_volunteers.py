"""Volunteers: imported whole or not at all, changed by the agency, and by themselves on a page."""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from itsdangerous import TimestampSigner
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from services.assignment import api, duty, openings, pages, volunteer_files, volunteers
from services.assignment.app import compose
from services.assignment.settings import AssignmentSettings
from services.assignment.volunteers import BrokenFile, Imported
from shared.database import Database, execute, sql
from shared.districts import District
from tests.conftest import SAMPLE_DISTRICT, MakeSettings
from tests.integration.cases import in_hand
from tests.integration.conftest import Door, one, open_door, rows, run
from tests.servers import PROJECT, Databases

SAMPLE = PROJECT / "districts" / SAMPLE_DISTRICT / "volunteers.csv"
HEADER = "name,role,phone,email,village,latitude,longitude,categories,capacity\n"
SITI = "Siti,psm,081200000001,,19.04.01.1002,,,,2\n"
WIDE = "name,role,phone,village,trainings,language,duty,off_until,on_duty,channel\n"
TIMEZONE = "Asia/Jakarta"

Districts = dict[str, District]


def line(**values: str) -> str:
    """A line of a file with all optional columns."""
    row = {
        "name": "Siti", "role": "psm", "phone": "081200000001", "village": "19.04.01.1002",
        "trainings": "", "language": "", "duty": "", "off_until": "", "on_duty": "",
        "channel": "",
    }  # fmt: skip
    return ",".join(f'"{value}"' for value in (row | values).values()) + "\n"


async def import_text(database: Database, content: str, districts: Districts) -> Imported:
    district = districts[SAMPLE_DISTRICT]
    read = volunteer_files.read_file(content.encode(), district=district, districts=districts)
    async with database.transaction() as session:
        return await volunteers.store(session, read.values(), district=district)


async def test_the_sample_file_is_imported_whole(
    assignment_database: Database, districts: Districts
) -> None:
    content = SAMPLE.read_text(encoding="utf-8")
    assert await import_text(assignment_database, content, districts) == Imported(115, 0)
    found = await rows(
        assignment_database,
        """
        SELECT role, count(*) AS n, bool_and(available OR duty_times <> '[]') AS free,
               count(*) FILTER (WHERE 'mental_health' = ANY (trainings)) AS trained
        FROM volunteers GROUP BY role
        """,
    )
    assert {row.role: row.n for row in found}["tksk"] == 6
    assert {row.role: row.trained for row in found}["tksk"] == 6
    assert sum(row.trained for row in found) >= 18
    assert all(row.free for row in found)


async def test_the_sample_serves_every_subdistrict_at_any_hour(
    assignment_database: Database, districts: Districts
) -> None:
    """Or what the demo shows would depend on when it is run."""
    await import_text(assignment_database, SAMPLE.read_text(encoding="utf-8"), districts)
    always = await rows(
        assignment_database,
        """
        SELECT left(village, 8) AS subdistrict, count(*) AS n,
               count(*) FILTER (WHERE 'mental_health' = ANY (trainings)) AS trained
        FROM volunteers WHERE duty_times = '[]' GROUP BY 1
        """,
    )
    assert len(always) == 6
    assert all(row.n >= 10 and row.trained >= 3 for row in always)
    assert (
        1
        <= await one(
            assignment_database, "SELECT count(*) FROM volunteers WHERE duty_times <> '[]'"
        )
        <= 10
    )


async def test_the_same_file_again_updates_and_adds_nobody(
    assignment_database: Database, districts: Districts
) -> None:
    content = SAMPLE.read_text(encoding="utf-8")
    await import_text(assignment_database, content, districts)
    ids = await rows(assignment_database, "SELECT id FROM volunteers ORDER BY id")
    moved = content.replace("Bambang Permana,tksk", "Bambang P.,tksk")
    assert await import_text(assignment_database, moved, districts) == Imported(0, 115)
    assert await rows(assignment_database, "SELECT id FROM volunteers ORDER BY id") == ids
    assert await one(
        assignment_database, "SELECT name FROM volunteers WHERE phone = '+6289000000001'"
    ) == ("Bambang P.")


async def test_whoever_has_only_an_email_is_known_by_it(
    assignment_database: Database, districts: Districts
) -> None:
    line = "Siti,psm,,siti@example.org,19.04.01.1002,,,,\n"
    assert await import_text(assignment_database, HEADER + line, districts) == Imported(1, 0)
    assert await import_text(assignment_database, HEADER + line, districts) == Imported(0, 1)


async def test_nobody_is_cut_below_what_they_have_taken_on(
    assignment_database: Database, districts: Districts
) -> None:
    await import_text(assignment_database, HEADER + SITI, districts)
    await in_hand(assignment_database, (await stored(assignment_database)).id, 2)
    fewer = SITI.replace(",2\n", ",1\n")
    await import_text(assignment_database, HEADER + fewer, districts)
    (siti,) = await rows(assignment_database, "SELECT capacity, available FROM volunteers")
    assert siti == (2, False)


async def test_the_file_may_come_from_a_spreadsheet(
    assignment_database: Database, districts: Districts
) -> None:
    content = "\ufeff" + "Name, ROLE ,phone\r\n" + " Siti , PSM ,0812-0000-0001\r\n"
    with pytest.raises(BrokenFile, match="row 2"):  # no place: it says so, the header is fine
        await import_text(assignment_database, content, districts)
    content = "\ufeffName, ROLE ,phone,village\r\n Siti , PSM ,0812-0000-0001, Berok \r\n"
    assert await import_text(assignment_database, content, districts) == Imported(1, 0)
    assert await rows(assignment_database, "SELECT name, role, phone FROM volunteers") == [
        ("Siti", "psm", "+6281200000001")
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ["There is no heading: a row that names the columns, with the names"]),
        (HEADER, ["The file has no volunteers below the heading in row 1."]),
        ("name,shoesize\n", ["row 1: a column for the roles (role, peran, jabatan) is missing"]),
        (HEADER + SITI + SITI, ["row 3, phone: the same contact as in row 2"]),
        (HEADER + ",psm,081200000001,,Berok,,,,\n", ["row 2, name: "]),
        (HEADER + SITI.replace("psm", "boss"), ["row 2, role: "]),
        (HEADER + SITI.replace("081200000001", "12"), ["row 2, phone: This is not a telephone"]),
        (HEADER + SITI.replace("081200000001", ""), ["row 2, phone or email: one of them is"]),
        (HEADER + SITI.replace(",,19.04", ",nobody,19.04"), ["row 2, email: "]),
        (HEADER + SITI.replace("1002", "9999"), ["row 2, village: "]),
        (HEADER + "Siti,psm,081200000001,,,-6.2,106.8,,\n", ["row 2, latitude: ", "far outside"]),
        (HEADER + "Siti,psm,081200000001,,,x,106.8,,\n", ["row 2, latitude: "]),
        (HEADER + SITI.replace(",2\n", ",0\n"), ["row 2, capacity: "]),
        (HEADER + SITI.replace(",,2\n", ",homeless;alien,2\n"), ["row 2, categories: "]),
        (HEADER + SITI.replace(",,2\n", ",,2.5\n"), ["row 2, capacity: "]),
        (WIDE + line(trainings="a;!"), ["row 2, trainings: "]),
        (WIDE + line(language="fr"), ["row 2, language: "]),
        (WIDE + line(duty="mon"), ["row 2, duty: “mon” has no hours"]),
        (WIDE + line(off_until="31/12/2026"), ["row 2, off_until: write it as 2026-08-31"]),
        (WIDE + line(off_until="2026-13-01"), ["row 2, off_until: write it as 2026-08-31"]),
        (WIDE + line(off_until="9999-12-31"), ["row 2, off_until: must be a year between"]),
        (WIDE + line(on_duty="perhaps"), ["row 2, on_duty: write yes or no (ya or tidak)"]),
        (WIDE + line(phone="", on_duty="no"), ["row 2, phone or email: one of them is needed"]),
        (WIDE + line(channel="pigeon"), ["row 2, channel: "]),
        (
            WIDE + line(channel="email"),
            ["row 2, channel: Without an e-mail address nobody can be reached by e-mail."],
        ),
        (
            WIDE.replace("phone", "email") + line(phone="siti@example.org", channel="sms"),
            ["row 2, channel: Without a phone nobody can be reached by SMS."],
        ),
        (
            HEADER + SITI.replace("\n", ",more,\n"),
            ["row 2, the row has more values than"],
        ),
        (HEADER + SITI.replace("Siti", "Si\x07ti"), ["row 2, name: "]),
        (HEADER + SITI.replace("Siti", "Si\x00ti"), ["neither a text nor a workbook"]),
        (
            HEADER + SITI + SITI.replace("psm", "boss") + "\n" + ",,,,,,,,\n" + ",psm,,,,,,,\n",
            ["row 3, role: write psm, tksk, pensosmas or pkh", "row 6, name: "],
        ),
    ],
    ids=lambda value: repr(value)[-50:],
)
async def test_a_broken_row_is_named_with_its_reason(
    content: str, said: list[str], districts: Districts
) -> None:
    with pytest.raises(BrokenFile) as refused:
        volunteer_files.read_file(
            content.encode(), district=districts[SAMPLE_DISTRICT], districts=districts
        ).values()
    for part in said:
        assert part in str(refused.value), refused.value.problems


async def test_the_command_imports_nothing_of_a_file_with_one_broken_row(
    settings_without_kafka: MakeSettings, tmp_path: Path
) -> None:
    settings = await settings_without_kafka(AssignmentSettings)
    content = SAMPLE.read_text(encoding="utf-8")
    file = tmp_path / "volunteers.csv"

    async def imported() -> tuple[int | None, str]:
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "volunteers", "import", str(file)),
            env={
                **os.environ,
                "JANGKAU_DATABASE_URL": settings.database_url,
                "JANGKAU_DISTRICTS": settings.districts,
            },
            cwd=PROJECT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await command.communicate()
        return command.returncode, said.decode()

    database = Database(settings.database_url_of("assignment"), pool_size=1)
    file.write_text(content + "Nobody,boss,0812,,,,,,\n", encoding="utf-8")
    code, said = await imported()
    assert code == 1, said
    assert "volunteers.csv: row 117, role: " in said
    assert "Nothing was imported" in said
    assert await one(database, "SELECT count(*) FROM volunteers") == 0
    file.write_text(content, encoding="utf-8")
    code, said = await imported()
    assert code == 0, said
    assert "115 added, 0 updated." in said
    assert await one(database, "SELECT count(*) FROM volunteers") == 115
    await database.close()


# --- the optional columns -------------------------------------------------------------------------


async def stored(database: Database) -> Any:
    """The only volunteer."""
    (row,) = await rows(database, "SELECT * FROM volunteers")
    return row


async def opened(database: Database) -> list[str]:
    """The districts that were announced to the sweep, which then has taken them."""
    return [row.district for row in await rows(database, "DELETE FROM openings RETURNING district")]


async def test_the_optional_columns_are_stored(
    assignment_database: Database, districts: Districts
) -> None:
    wanted = line(
        trainings="Mental Health; first_aid", language="EN", duty="sen-jum 08.00-17.00",
        off_until="2199-08-31", on_duty="tidak", channel="SMS",
    )  # fmt: skip
    await import_text(assignment_database, WIDE + wanted, districts)
    siti = await stored(assignment_database)
    assert siti.channel == "sms"
    assert siti.trainings == ["mental_health", "first_aid"]
    assert (siti.language, siti.on_duty, siti.ready) == ("en", False, False)
    assert siti.duty_times == duty.parse_times("mon-fri 08:00-17:00")
    # The last day off counts whole; the first of September 2199 is a Sunday.
    assert siti.off_until == datetime(2199, 9, 1, tzinfo=ZoneInfo(TIMEZONE))
    assert siti.ready_changes_at == datetime(2199, 9, 2, 8, tzinfo=ZoneInfo(TIMEZONE))


async def test_empty_optional_cells_are_the_defaults(
    assignment_database: Database, districts: Districts
) -> None:
    full = line(trainings="a", language="en", duty="mon 08:00-09:00", off_until="2199-01-01",
                on_duty="no", channel="sms")  # fmt: skip
    await import_text(assignment_database, WIDE + full, districts)
    await import_text(assignment_database, WIDE + line(), districts)
    siti = await stored(assignment_database)
    assert siti.channel is None
    assert (siti.trainings, siti.language, siti.duty_times) == ([], "id", [])
    assert (siti.off_until, siti.on_duty, siti.ready, siti.ready_changes_at) == (
        None, True, True, None,
    )  # fmt: skip


async def test_a_file_without_the_optional_columns_changes_nothing_of_them(
    assignment_database: Database, districts: Districts
) -> None:
    full = line(trainings="a", language="en", duty="mon 08:00-09:00", off_until="2199-01-01",
                on_duty="no", channel="sms")  # fmt: skip
    await import_text(assignment_database, WIDE + full, districts)
    before = await stored(assignment_database)
    narrow = HEADER + SITI.replace("Siti", "Siti A.")
    assert await import_text(assignment_database, narrow, districts) == Imported(0, 1)
    after = await stored(assignment_database)
    assert after.name == "Siti A."
    for kept in ("trainings", "language", "duty_times", "off_until", "on_duty", "ready", "channel"):
        assert after[kept] == before[kept], kept
    some = "name,role,phone,village,on_duty\nSiti,psm,081200000001,19.04.01.1002,ya\n"
    await import_text(assignment_database, some, districts)
    assert (await stored(assignment_database)).on_duty
    assert (await stored(assignment_database)).trainings == ["a"]


async def test_an_import_with_a_new_email_forgets_that_they_wanted_none(
    assignment_database: Database, districts: Districts
) -> None:
    siti = "Siti,psm,081200000001,{},19.04.01.1002,,,,2\n"
    await import_text(assignment_database, HEADER + siti.format("a@example.org"), districts)
    stop = "UPDATE volunteers SET stopped = '{sms,email}', reachable = false, ready = false"
    await run(assignment_database, stop)
    await import_text(assignment_database, HEADER + siti.format("a@example.org"), districts)
    same = await stored(assignment_database)
    assert (same.stopped, same.reachable, same.ready) == (["sms", "email"], False, False)
    await import_text(assignment_database, HEADER + siti.format("b@example.org"), districts)
    new = await stored(assignment_database)
    assert (new.stopped, new.reachable, new.ready) == (["sms"], True, True)


async def test_an_import_announces_the_district_and_locks_no_case(
    assignment_database: Database, districts: Districts
) -> None:
    woken = assignment_database.wake_on_commit(openings.WORK)
    async with assignment_database.transaction() as other:
        await execute(other, sql("LOCK TABLE cases IN ACCESS EXCLUSIVE MODE"))
        # Waiting for the lock would end in an error of the database, however slow the machine.
        await import_text(assignment_database, HEADER + SITI, districts)
    assert await opened(assignment_database) == [SAMPLE_DISTRICT]
    assert woken.is_set()


# --- export ---------------------------------------------------------------------------------------


async def exported(database: Database, districts: Districts) -> str:
    async with database.transaction() as session:
        found = [each async for each in volunteers.every(session, district=None, page=40)]
    return volunteer_files.write_csv(found, districts=districts)


async def everything(database: Database) -> list[dict[str, Any]]:
    """All that an import can set, by contact."""
    found = await rows(database, "SELECT * FROM volunteers ORDER BY coalesce(phone, ''), email")
    own = ("id", "created_at", "updated_at")
    return [{key: value for key, value in row.items() if key not in own} for row in found]


async def test_what_was_exported_is_imported_as_it_was(
    assignment_database: Database, districts: Districts
) -> None:
    await import_text(assignment_database, SAMPLE.read_text(encoding="utf-8"), districts)
    odd = WIDE.replace("phone", "email") + "".join(
        line(phone=f"{number}@example.org", **values)
        for number, values in enumerate(
            [
                {"name": "=1+1"},
                {"name": "'=1+1"},
                {"name": "'Aisyah"},
                {"name": "+62; Siti, A.".replace('"', '""')},
                {"name": "@home", "on_duty": "no", "language": "en"},
                {"off_until": "2199-08-31"},
                {"off_until": "2199-08-31T14:05:06"},
                {"off_until": "2199-08-31T14:05+09:00"},
                {"duty": "daily 22:00-06:00; mon,wed 08:00-24:00"},
                {"channel": "email"},
                {"channel": "other"},
            ]
        )
    )
    await import_text(assignment_database, odd, districts)
    await run(
        assignment_database,
        "UPDATE volunteers SET email = '=cmd' || email WHERE email = '5@example.org'",
    )
    before, content = (
        await everything(assignment_database),
        await exported(assignment_database, districts),
    )
    await run(assignment_database, "DELETE FROM volunteers")
    assert await import_text(assignment_database, content, districts) == Imported(126, 0)
    after = await everything(assignment_database)
    assert after == before
    assert await exported(assignment_database, districts) == content
    # Nothing that a spreadsheet would run: a text that begins like a formula is a phone number.
    for cell in re.findall(r'"([=+@-][^"]*)"', content):
        assert re.fullmatch(r"[+][0-9]+", cell), cell


async def test_a_wish_that_cannot_be_had_is_left_out_of_the_file(
    assignment_database: Database, districts: Districts
) -> None:
    """Or import would refuse what export has written."""
    await import_text(assignment_database, HEADER + SITI, districts)
    await run(assignment_database, "UPDATE volunteers SET channel = 'email'")
    content = await exported(assignment_database, districts)
    assert await import_text(assignment_database, content, districts) == Imported(0, 1)
    assert (await stored(assignment_database)).channel is None


async def test_who_has_no_contact_is_left_out_of_the_file(
    assignment_database: Database, districts: Districts
) -> None:
    await import_text(assignment_database, HEADER + SITI, districts)
    await run(assignment_database, "UPDATE volunteers SET on_duty = false, phone = NULL")
    assert (await exported(assignment_database, districts)).count("\n") == 1


# --- who is ready, kept in the table --------------------------------------------------------------


async def refreshed(database: Database, limit: int = 500) -> list[str]:
    async with database.transaction() as session:
        return await duty.refresh(session, timezones={SAMPLE_DISTRICT: TIMEZONE}, limit=limit)


async def test_whoever_becomes_ready_is_announced_once(
    assignment_database: Database, districts: Districts
) -> None:
    await import_text(assignment_database, HEADER + SITI, districts)
    await opened(assignment_database)
    assert await refreshed(assignment_database) == []
    await run(
        assignment_database,
        """
        UPDATE volunteers SET ready = false, rest_until = now(), ready_changes_at = now()
        """,
    )
    assert await refreshed(assignment_database) == [SAMPLE_DISTRICT]
    assert await opened(assignment_database) == [SAMPLE_DISTRICT]
    siti = await stored(assignment_database)
    assert (siti.ready, siti.available, siti.ready_changes_at) == (True, True, None)
    assert await refreshed(assignment_database) == []
    assert await opened(assignment_database) == []


@pytest.mark.parametrize("full", [False, True], ids=["off duty", "full"])
async def test_whoever_becomes_ready_but_cannot_be_asked_is_not_announced(
    full: bool, assignment_database: Database, districts: Districts
) -> None:
    await import_text(assignment_database, HEADER + SITI, districts)
    await opened(assignment_database)
    await run(
        assignment_database,
        "UPDATE volunteers SET on_duty = :on, ready = false, ready_changes_at = now()",
        on=full,
    )
    if full:
        siti = await stored(assignment_database)
        await in_hand(assignment_database, siti.id, siti.capacity)
    assert await refreshed(assignment_database) == []
    assert (await stored(assignment_database)).ready
    assert await opened(assignment_database) == []


async def test_whose_times_end_is_no_longer_ready_until_they_begin(
    assignment_database: Database, districts: Districts
) -> None:
    await import_text(assignment_database, HEADER + SITI, districts)
    await opened(assignment_database)
    local = datetime.now(ZoneInfo(TIMEZONE))
    begins = (local + timedelta(hours=2)).replace(second=0, microsecond=0)
    ends = begins + timedelta(hours=1)
    window = duty.window([begins.weekday()], f"{begins:%H:%M}", f"{ends:%H:%M}")
    await run(
        assignment_database,
        "UPDATE volunteers SET duty_times = CAST(:times AS jsonb), ready_changes_at = now()",
        times=json.dumps([window]),
    )
    assert await refreshed(assignment_database) == []
    siti = await stored(assignment_database)
    assert (siti.ready, siti.available, siti.ready_changes_at) == (False, False, begins)


async def test_a_refresh_takes_no_more_than_it_may_and_waits_for_nobody(
    assignment_database: Database, districts: Districts
) -> None:
    await import_text(assignment_database, SAMPLE.read_text(encoding="utf-8"), districts)
    await run(assignment_database, "UPDATE volunteers SET ready_changes_at = now()")
    due = "SELECT count(*) FROM volunteers WHERE ready_changes_at <= now()"
    async with assignment_database.transaction() as other:
        await execute(other, sql("SELECT 1 FROM volunteers ORDER BY id LIMIT 10 FOR UPDATE"))
        # Waiting for a lock would end in an error of the database, however slow the machine.
        await refreshed(assignment_database, limit=5)
        assert await one(assignment_database, due) == 110
        await refreshed(assignment_database)
    assert await one(assignment_database, due) == 10


async def test_the_volunteers_of_a_district_that_was_taken_away_wait_for_it(
    assignment_database: Database, districts: Districts
) -> None:
    await import_text(assignment_database, HEADER + SITI, districts)
    await run(
        assignment_database,
        "UPDATE volunteers SET district = '19.99', ready = false, ready_changes_at = now()",
    )
    assert await refreshed(assignment_database) == []
    assert not (await stored(assignment_database)).ready


# --- GET /v1/volunteers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def assignment(databases: Databases, districts: Districts) -> AsyncIterator[Door]:
    """Assignment with the sample volunteers, and a token that shows them."""
    name = f"jangkau_{databases.run}_listed"
    await databases.create("assignment", f"{name}_assignment")
    url = f"{databases.server}/{name}_{{service}}"
    settings = AssignmentSettings(
        database_url=url, agency_token=SecretStr("the token of the agency")
    )
    service = compose(settings)
    service.routers = [
        api.router(service.database, token=settings.agency_token, districts=districts),
        pages.router(
            service.database,
            links=settings.links,
            max_age=settings.duty_link_age,
            districts=districts,
        ),
    ]
    door = open_door(service)
    await import_text(door.database, SAMPLE.read_text(encoding="utf-8"), districts)
    yield door
    await door.close()
    await databases.drop([f"{name}_assignment"])


BEARER = {"Authorization": "Bearer the token of the agency"}


async def test_volunteers_come_a_page_at_a_time_each_once(assignment: Door) -> None:
    seen: list[str] = []
    after: str | None = None
    pages = 0
    while True:
        query = {"limit": "50", "district": SAMPLE_DISTRICT, **({"after": after} if after else {})}
        answer = await assignment.http.get("/v1/volunteers", params=query, headers=BEARER)
        page = answer.json()
        pages += 1
        seen += [volunteer["id"] for volunteer in page["volunteers"]]
        after = page["next_after"]
        if after is None:
            break
    assert pages == 3
    assert len(seen) == len(set(seen)) == 115


async def test_another_district_has_no_volunteers(assignment: Door) -> None:
    answer = await assignment.http.get("/v1/volunteers?district=19.05", headers=BEARER)
    assert answer.json() == {"volunteers": [], "next_after": None}


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "the token of the agency"}]
)
async def test_without_the_token_nobody_sees_volunteers(
    assignment: Door, headers: dict[str, str]
) -> None:
    answer = await assignment.http.get("/v1/volunteers", headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Bambang" not in answer.text


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=x", "district=" + "1" * 21])
async def test_a_query_that_makes_no_sense_is_refused(assignment: Door, query: str) -> None:
    answer = await assignment.http.get(f"/v1/volunteers?{query}", headers=BEARER)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


async def test_a_district_with_a_zero_byte_is_no_crash(assignment: Door) -> None:
    answer = await assignment.http.get("/v1/volunteers?district=%00", headers=BEARER)
    assert answer.status_code == 400  # refused at the door, before the query is read


# --- GET and PATCH /v1/volunteers/{id} ------------------------------------------------------------


async def somebody(door: Door, **values: Any) -> UUID:
    """A volunteer of their own for one test."""
    id_ = uuid7()
    row = {
        "id": id_, "district": SAMPLE_DISTRICT, "name": "Rina", "role": "psm",
        "phone": f"+62899{id_.int % 10**8:08}", "email": f"{id_}@example.org",
        "village": "19.04.01.1002", "latitude": -2.5, "longitude": 106.4, "categories": [],
        "capacity": 2, "open_cases": 0, "on_duty": True, **values,
    }  # fmt: skip
    names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    await run(door.database, f"INSERT INTO volunteers ({names}) VALUES ({places})", **row)  # noqa: S608
    await opened(door.database)
    return id_


async def patched(door: Door, id_: UUID, **changes: Any) -> Any:
    return await door.http.patch(f"/v1/volunteers/{id_}", json=changes, headers=BEARER)


async def test_one_volunteer_is_shown_whole(assignment: Door) -> None:
    id_ = await somebody(
        assignment,
        trainings=["first_aid"],
        duty_times=json.dumps(duty.parse_times("daily 22:00-06:00")),
    )
    answer = await assignment.http.get(f"/v1/volunteers/{id_}", headers=BEARER)
    shown = answer.json()
    assert shown["duty"] == "daily 22:00-06:00"
    assert shown["trainings"] == ["first_aid"]
    assert (shown["language"], shown["ready"]) == ("id", True)
    assert shown["off_until"] is shown["rest_until"] is shown["last_reached_at"] is None
    assert "duty_times" not in shown


async def test_a_change_changes_what_it_names_and_nothing_else(assignment: Door) -> None:
    id_ = await somebody(assignment)
    before = (await assignment.http.get(f"/v1/volunteers/{id_}", headers=BEARER)).json()
    changes = {
        "name": "Rina A.", "role": "tksk", "email": "r@example.org", "language": "en",
        "categories": ["homeless"], "trainings": ["mental_health"], "capacity": 5,
        "duty": "sen-jum 08.00-17.00",
    }  # fmt: skip
    answer = await patched(assignment, id_, **changes)
    assert answer.status_code == 200, answer.text
    # How they stand depends on the time of day at which this runs.
    stands = {name: answer.json()[name] for name in ("ready", "why_not", "until")}
    expected = before | changes | {"duty": "mon-fri 08:00-17:00"} | stands
    assert answer.json() == expected
    again = await assignment.http.get(f"/v1/volunteers/{id_}", headers=BEARER)
    assert again.json() | stands == expected


async def test_a_phone_is_normalised(assignment: Door) -> None:
    id_ = await somebody(assignment)
    answer = await patched(assignment, id_, phone="0812-7777-0001")
    assert answer.json()["phone"] == "+6281277770001"


async def test_leave_begins_at_once_and_ends_by_null(assignment: Door) -> None:
    id_ = await somebody(assignment)
    away = (await patched(assignment, id_, off_until="2199-08-31")).json()
    assert away["off_until"] == "2199-08-31T17:00:00Z"  # midnight after it in Jakarta
    assert not away["ready"]
    assert await opened(assignment.database) == []
    back = (await patched(assignment, id_, off_until=None)).json()
    assert (back["off_until"], back["ready"]) == (None, True)
    assert await opened(assignment.database) == [SAMPLE_DISTRICT]


async def test_a_new_home_is_a_village_or_a_position(assignment: Door) -> None:
    id_ = await somebody(assignment)
    moved = (await patched(assignment, id_, latitude=-2.3, longitude=106.2)).json()
    assert (moved["latitude"], moved["longitude"], moved["village"]) == (-2.3, 106.2, None)
    moved = (await patched(assignment, id_, village="Berok")).json()
    assert (moved["village"], moved["latitude"]) == ("19.04.01.1017", -2.493)


async def test_how_they_would_rather_be_reached_is_shown_and_changed(assignment: Door) -> None:
    id_ = await somebody(assignment, email=None)
    answer = await patched(assignment, id_, channel="email")
    assert answer.status_code == 422
    assert "Without an e-mail address" in answer.json()["detail"]
    changed = (await patched(assignment, id_, channel="email", email="s@example.org")).json()
    assert (changed["channel"], changed["stopped"], changed["reachable"]) == ("email", [], True)
    # Taken away, it is a wish that cannot be had, and no mistake.
    assert (await patched(assignment, id_, email=None)).json()["channel"] == "email"
    assert (await patched(assignment, id_, channel=None)).json()["channel"] is None


async def test_whoever_comes_back_on_duty_is_announced(assignment: Door) -> None:
    id_ = await somebody(assignment, on_duty=False)
    await patched(assignment, id_, name="Still off")
    assert await opened(assignment.database) == []
    await patched(assignment, id_, on_duty=True)
    assert await opened(assignment.database) == [SAMPLE_DISTRICT]


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({}, 422, "body"),
        ({"shoesize": 43}, 422, "shoesize"),
        ({"open_cases": 0}, 422, "open_cases"),
        ({"ready": True}, 422, "ready"),
        ({"district": "19.05"}, 422, "district"),
        ({"name": ""}, 422, "name"),
        ({"name": None}, 422, "name"),
        ({"name": "Si\u0000ti"}, 422, "name"),
        ({"role": "boss"}, 422, "role"),
        ({"phone": "12"}, 422, "phone"),
        ({"email": "nobody"}, 422, "email"),
        ({"phone": None, "email": None}, 422, "on_duty"),
        ({"language": "fr"}, 422, "language"),
        ({"channel": "pigeon"}, 422, "channel"),
        ({"channel": "email", "email": None}, 422, "channel"),
        ({"reachable": False}, 422, "reachable"),
        ({"latitude": -2.3}, 422, "longitude"),
        ({"latitude": -6.2, "longitude": 106.8}, 422, "latitude"),
        ({"latitude": 91, "longitude": 106.8}, 422, "latitude"),
        ({"village": "Atlantis"}, 422, "village"),
        ({"village": None}, 422, "village"),
        ({"categories": ["alien"]}, 422, "categories.0"),
        ({"trainings": ["!"]}, 422, "trainings.0"),
        ({"trainings": ["a"] * 21}, 422, "trainings"),
        ({"capacity": 0}, 422, "capacity"),
        ({"capacity": 101}, 422, "capacity"),
        ({"capacity": 1}, 409, "capacity"),
        ({"phone": "+6289000000001"}, 409, "phone"),
        ({"on_duty": None}, 422, "on_duty"),
        ({"on_duty": "perhaps"}, 422, "on_duty"),
        ({"duty": "mon"}, 422, "duty"),
        ({"duty": []}, 422, "duty"),
        ({"off_until": "tomorrow"}, 422, "off_until"),
        ({"off_until": 5}, 422, "off_until"),
        ({"off_until": "9999-12-31"}, 422, "off_until"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
async def test_a_change_that_makes_no_sense_is_refused_whole(
    changes: dict[str, Any], status: int, field: str, assignment: Door
) -> None:
    id_ = await somebody(assignment, open_cases=2)
    before = await rows(assignment.database, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    answer = await patched(assignment, id_, **({"name": "Changed"} | changes if changes else {}))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert error["message"].endswith(".") or error["message"].endswith("?"), error
    after = await rows(assignment.database, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    assert after == before
    assert await opened(assignment.database) == []


async def test_without_contact_one_may_stay_as_long_as_one_is_off_duty(assignment: Door) -> None:
    id_ = await somebody(assignment)
    answer = await patched(assignment, id_, phone=None, email=None, on_duty=False)
    assert answer.status_code == 200, answer.text
    answer = await patched(assignment, id_, on_duty=True)
    assert answer.status_code == 422
    assert "could not be asked" in answer.json()["detail"]
    assert (await patched(assignment, id_, on_duty=True, phone="081277770002")).status_code == 200


async def test_nobody_has_the_only_email_of_another(assignment: Door) -> None:
    await somebody(assignment, phone=None, email="only@example.org")
    id_ = await somebody(assignment, phone=None)
    answer = await patched(assignment, id_, email="only@example.org")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "Another volunteer of the district has this email."


async def test_who_is_not_there_is_not_found(assignment: Door) -> None:
    assert (await patched(assignment, uuid7(), name="X")).status_code == 404
    answer = await assignment.http.get(f"/v1/volunteers/{uuid7()}", headers=BEARER)
    assert answer.status_code == 404
    answer = await assignment.http.get("/v1/volunteers/x", headers=BEARER)
    assert answer.status_code == 422


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_without_the_token_nobody_sees_or_changes_one(method: str, assignment: Door) -> None:
    id_ = await somebody(assignment)
    answer = await assignment.http.request(method, f"/v1/volunteers/{id_}", json={"name": "X"})
    assert answer.status_code == 403
    assert "Rina" not in answer.text


async def test_a_change_of_a_district_that_is_not_here_is_refused(assignment: Door) -> None:
    id_ = await somebody(assignment, district="19.99")
    answer = await patched(assignment, id_, name="X")
    assert answer.status_code == 409
    assert "There is no district 19.99; known are 19.04" in answer.json()["detail"]
    await run(assignment.database, "DELETE FROM volunteers WHERE id = :id", id=id_)


async def test_two_changes_at_once_are_both_made(assignment: Door) -> None:
    id_ = await somebody(assignment)
    answers = await asyncio.gather(
        patched(assignment, id_, name="One"),
        patched(assignment, id_, capacity=9),
        patched(assignment, id_, trainings=["first_aid"]),
        patched(assignment, id_, language="en"),
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    now = (await assignment.http.get(f"/v1/volunteers/{id_}", headers=BEARER)).json()
    assert (now["name"], now["capacity"], now["trainings"], now["language"]) == (
        "One", 9, ["first_aid"], "en",
    )  # fmt: skip


# --- the volunteer's own page ---------------------------------------------------------------------


def link(id_: UUID) -> str:
    settings = AssignmentSettings()
    return pages.duty_link(settings.links, id_, public_url="http://test")


async def entered(door: Door, id_: UUID, **form: str) -> Any:
    return await door.http.post(link(id_), data={"on_duty": "yes", "times": "always"} | form)


HOURS = {"times": "hours", "day0": "0", "from0": "08:00", "to0": "17:00"}


@pytest.mark.parametrize(
    ("language", "said"),
    [("id", "Kirim pesan MULAI untuk menerimanya lagi."), ("en", "Send us MULAI to get them")],
)
async def test_the_page_says_how_to_get_messages_again(
    assignment: Door, language: str, said: str
) -> None:
    id_ = await somebody(
        assignment, stopped=["sms", "email"], reachable=False, ready=False, language=language
    )
    page = await assignment.http.get(link(id_))
    assert said in page.text
    assert "siap menerima tugas" not in page.text
    assert (await entered(assignment, id_)).status_code == 303
    assert not await one(
        assignment.database, "SELECT available FROM volunteers WHERE id = :id", id=id_
    )


async def test_the_page_shows_how_one_is_listed(assignment: Door) -> None:
    id_ = await somebody(assignment, name="Rina <b>A.</b>")
    page = await assignment.http.get(link(id_))
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    for rule in ("default-src 'none'", "style-src 'unsafe-inline'", "form-action 'self'",
                 "frame-ancestors 'none'"):  # fmt: skip
        assert rule in policy
    assert len(page.content) < 8 * 1024
    assert '<html lang="id">' in page.text
    assert "Rina &lt;b&gt;A.&lt;/b&gt;" in page.text
    assert "Anda siap menerima tugas sekarang." in page.text
    assert "Tidak ada kasus terbuka." in page.text
    assert "<script" not in page.text
    assert "//" not in page.text, "no other address"


async def test_the_page_speaks_the_volunteers_language(assignment: Door) -> None:
    page = await assignment.http.get(link(await somebody(assignment, language="en")))
    assert '<html lang="en">' in page.text
    assert "You can be asked now." in page.text
    assert "Simpan" not in page.text


async def test_looking_at_the_page_changes_nothing(assignment: Door) -> None:
    id_ = await somebody(assignment)
    before = await rows(assignment.database, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    address = link(id_)
    await assignment.http.get(f"{address}?on_duty=no&times=hours&saved=1")
    await assignment.http.head(address)
    after = await rows(assignment.database, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    assert after == before
    assert await opened(assignment.database) == []


async def test_going_off_duty_and_on_again(assignment: Door) -> None:
    id_ = await somebody(assignment)
    answer = await entered(assignment, id_, on_duty="no")
    assert answer.status_code == 303
    assert answer.headers["referrer-policy"] == "no-referrer"
    page = await assignment.http.get(answer.url.join(answer.headers["location"]))
    assert "Tersimpan" in page.text
    assert "tidak bertugas; setiap saat" in " ".join(page.text.split())
    assert "Anda tidak bertugas" in page.text
    assert await opened(assignment.database) == []
    await entered(assignment, id_)
    assert await opened(assignment.database) == [SAMPLE_DISTRICT]
    listed = (await assignment.http.get(f"/v1/volunteers/{id_}", headers=BEARER)).json()
    assert (listed["on_duty"], listed["duty"], listed["off_until"]) == (True, "", None)


async def test_two_schedules_fit_the_form(assignment: Door) -> None:
    id_ = await somebody(assignment)
    form: dict[str, Any] = {
        **{"on_duty": "yes", "times": "hours"},
        **{"day0": ["0", "1"], "from0": "08:00", "to0": "17:00"},
        **{"day1": ["5", "9"], "from1": "00:00", "to1": "00:00"},
    }
    answer = await assignment.http.post(link(id_), data=form)
    assert answer.status_code == 303, answer.text
    listed = (await assignment.http.get(f"/v1/volunteers/{id_}", headers=BEARER)).json()
    assert listed["duty"] == "mon,tue 08:00-17:00; sat 00:00-24:00"
    page = await assignment.http.get(link(id_))
    assert page.text.count('type="checkbox"') == 14
    assert len(re.findall(r'type="checkbox"[^>]* checked', page.text)) == 3
    assert re.findall(r'type="time" name="([^"]+)" value="([^"]+)"', page.text) == [
        ("from0", "08:00"), ("to0", "17:00"), ("from1", "00:00"), ("to1", "00:00"),
    ]  # fmt: skip
    assert len(page.content) < 8 * 1024


async def test_times_that_the_form_cannot_show_are_a_text(assignment: Door) -> None:
    times = duty.parse_times("mon-fri 08:00-12:00; mon 19:00-22:00; sun 08:00-09:00")
    id_ = await somebody(assignment, duty_times=json.dumps(times))
    page = await assignment.http.get(link(id_))
    assert ">sen-jum 08:00-12:00; sen 19:00-22:00; min 08:00-09:00</textarea>" in page.text
    answer = await entered(assignment, id_, times="hours", duty="sab 08:00-12:00")
    assert answer.status_code == 303
    listed = (await assignment.http.get(f"/v1/volunteers/{id_}", headers=BEARER)).json()
    assert listed["duty"] == "sat 08:00-12:00"


@pytest.mark.parametrize("typed", ["2199-08-31", "31/08/2199", "31-8-2199"])
async def test_leave_is_told_with_its_last_day(typed: str, assignment: Door) -> None:
    id_ = await somebody(assignment)
    await entered(assignment, id_, off_until=typed)
    page = await assignment.http.get(f"{link(id_)}?saved=1")
    assert "libur sampai dengan Sabtu 31 Agu 2199" in page.text
    assert 'value="2199-08-31"' in page.text
    said = "Anda sedang libur; tugas baru mulai Minggu 1 Sep 2199 pukul 00.00."
    assert said in " ".join(page.text.split())
    listed = (await assignment.http.get(f"/v1/volunteers/{id_}", headers=BEARER)).json()
    assert listed["off_until"] == "2199-08-31T17:00:00Z"


async def test_an_hour_of_leave_is_not_lost_by_saving_something_else(assignment: Door) -> None:
    ends = datetime(2199, 8, 31, 7, 30, tzinfo=UTC)
    id_ = await somebody(assignment, off_until=ends)
    await entered(assignment, id_, off_until="2199-08-31", **HOURS)
    kept = "SELECT off_until FROM volunteers WHERE id = :id"
    assert await one(assignment.database, kept, id=id_) == ends
    await entered(assignment, id_, off_until="", **HOURS)
    assert await one(assignment.database, kept, id=id_) is None


async def test_leave_that_is_over_is_not_shown(assignment: Door) -> None:
    id_ = await somebody(assignment, off_until=datetime(2020, 8, 31, tzinfo=UTC))
    page = await assignment.http.get(f"{link(id_)}?saved=1")
    assert "2020" not in page.text
    assert "libur sampai" not in page.text
    assert 'id="off"' in page.text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"times": "hours"}, "Centang paling sedikit satu hari"),
        (HOURS | {"to0": ""}, "Isi “Dari jam” dan “Sampai jam”"),
        (HOURS | {"to0": "25:00"}, "25:00 bukan jam"),
        (HOURS | {"to0": "08:00"}, "mulai dan selesai pada jam yang sama"),
        ({"times": "hours", "duty": "<i>"}, "“&lt;i&gt;” tidak punya jam"),
        ({"off_until": "31 Agustus"}, "“Libur sampai dengan” bukan tanggal"),
        ({"off_until": "9999-12-31"}, "“Libur sampai dengan” bukan tanggal"),
        ({"on_duty": "perhaps"}, "Pilih apakah Anda siap bertugas."),
    ],
)
async def test_a_mistake_is_told_on_the_page_and_nothing_is_saved(
    form: Mapping[str, str], said: str, assignment: Door
) -> None:
    id_ = await somebody(assignment)
    before = await rows(assignment.database, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    page = await entered(assignment, id_, **{"on_duty": "no", **form})
    assert page.status_code == 422
    assert "Belum disimpan." in page.text
    assert said in page.text
    assert page.headers["cache-control"] == "no-store"
    # What was typed is still there.
    assert f'value="{form["to0"]}"' in page.text if form.get("to0") else True
    after = await rows(assignment.database, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    assert after == before


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_forged_link_opens_nothing(method: str, assignment: Door) -> None:
    id_ = await somebody(assignment)
    form = {"on_duty": "no", "times": "always"}
    other = AssignmentSettings(link_keys=SecretStr("somebody else's key")).links
    for token in ("x", "%00", link(id_)[-40:], other.token("volunteer", str(id_)),
                  AssignmentSettings().links.token("status", str(id_))):  # fmt: skip
        page = await assignment.http.request(method, f"/v/{token}", data=form)
        assert page.status_code == 403, token
        assert "Tautan ini tidak benar" in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert await one(assignment.database, "SELECT on_duty FROM volunteers WHERE id = :id", id=id_)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_old_link_says_so(
    method: str, assignment: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await somebody(assignment)
    with monkeypatch.context() as patch:
        then = int(time.time() - timedelta(days=91).total_seconds())
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: then)
        address = link(id_)
    page = await assignment.http.request(method, address, data={"on_duty": "no"})
    assert page.status_code == 410
    assert "Tautan ini sudah terlalu lama" in page.text
    assert await one(assignment.database, "SELECT on_duty FROM volunteers WHERE id = :id", id=id_)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_page_of_somebody_who_is_gone_says_so(method: str, assignment: Door) -> None:
    page = await assignment.http.request(
        method, link(uuid7()), data={"on_duty": "no", "times": "always"}
    )
    assert page.status_code == 410
    assert "Halaman ini sudah tidak ada" in page.text


async def test_without_contact_nobody_goes_on_duty_by_the_page(assignment: Door) -> None:
    id_ = await somebody(assignment, phone=None, email=None, on_duty=False)
    page = await entered(assignment, id_)
    assert page.status_code == 409
    assert "Kami tidak punya nomor telepon atau email Anda" in page.text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "Belum ada kasus di dekat Anda."),
        ({"rest_until": datetime(2199, 8, 31, 23, 47, tzinfo=UTC)},
         "Sedang istirahat setelah bertugas; tugas baru mulai Minggu 1 Sep 2199 pukul 06.47."),
        ({"on_duty": False}, "Anda tidak bertugas: tidak ada tugas baru."),
        ({"open_cases": 2}, "Anda sedang menangani kasus sebanyak yang Anda sanggupi (2)."),
        ({"open_offers": 3}, "Beberapa tugas menunggu jawaban Anda (3)."),
    ],
    ids=["ready", "resting", "off duty", "full", "asked"],
)  # fmt: skip
async def test_the_page_says_why_nothing_is_assigned(
    values: dict[str, Any], said: str, assignment: Door
) -> None:
    id_ = await somebody(assignment, **values)
    async with assignment.database.transaction() as session:
        await duty.recompute(session, [id_], timezones={SAMPLE_DISTRICT: TIMEZONE})
    page = await assignment.http.get(link(id_))
    assert said in " ".join(page.text.split())


async def test_the_page_names_open_cases_but_nothing_of_the_person(assignment: Door) -> None:
    id_ = await somebody(assignment)
    case, respond_by = uuid7(), datetime.now(UTC) + timedelta(minutes=5)
    await run(
        assignment.database,
        """
        INSERT INTO cases
            (id, code, district, category, urgency, people, latitude, longitude, approximate,
             subdistrict, subdistrict_name, village_name, centre_latitude, centre_longitude,
             drill, reported_at, state, version)
        VALUES (:id, 'KOB-123', '19.04', 'mental_illness', 'urgent', 1, -2.51234, 106.41234, false,
                '19.04.01', 'Koba', 'Berok', -2.493, 106.408, false, now(), 'offered', 1)
        """,
        id=case,
    )
    await run(
        assignment.database,
        """
        INSERT INTO offers (id, case_id, volunteer_id, district, answer_code, state, distance_m,
                            reasons, respond_by)
        VALUES (:id, :case, :volunteer, '19.04', 'K7P2M', 'offered', 1, '{}', :respond_by)
        """,
        id=uuid7(), case=case, volunteer=id_, respond_by=respond_by,
    )  # fmt: skip
    page = await assignment.http.get(link(id_))
    assert "KOB-123" in page.text
    assert "Koba" in page.text
    assert "Kode jawaban <b>K7P2M</b>" in page.text
    assert f"sampai pukul {respond_by.astimezone(ZoneInfo(TIMEZONE)):%H.%M}" in page.text
    for private in ("mental", "Berok", "2.51234"):
        assert private not in page.text
    await run(assignment.database, "DELETE FROM offers")
    await run(assignment.database, "DELETE FROM cases")


# --- the commands ---------------------------------------------------------------------------------


async def test_the_commands_export_list_and_link(assignment: Door, tmp_path: Path) -> None:
    file = tmp_path / "exported.csv"

    async def said(*arguments: str) -> tuple[int | None, str, str]:
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "volunteers", *arguments),
            env={
                **os.environ,
                "JANGKAU_DATABASE_URL": assignment.service.settings.database_url,
                "COLUMNS": "200",
            },
            cwd=PROJECT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        answer, errors = await command.communicate()
        return command.returncode, answer.decode(), errors.decode()

    id_ = await somebody(assignment, phone="+6289955550001", name="Rina", open_cases=2)
    code, _, errors = await said("export", str(file))
    assert (code, "Written to" in errors) == (0, True), errors
    assert file.stat().st_mode & 0o777 == 0o600
    code, answer, _ = await said("import", str(file))
    assert code == 0
    assert " 0 added" in f" {answer}"
    code, answer, errors = await said("list")
    assert code == 0, errors
    (rina,) = [row for row in answer.splitlines() if "+6289955550001" in row]
    for part in ("Rina", "psm", "2/2", "full", "never"):
        assert part in rina, (part, rina)
    assert "Arung Dalam" in answer
    code, answer, _ = await said("list", "--json", "--ready", "--district", SAMPLE_DISTRICT)
    listed = json.loads(answer)
    assert str(id_) not in {each["id"] for each in listed}
    assert all(each["on_duty"] and each["ready"] for each in listed)
    code, answer, _ = await said("link", "0899-5555-0001")
    assert code == 0
    assert answer.startswith("http://127.0.0.1:8002/v/")
    page = await assignment.http.get(answer.strip().removeprefix("http://127.0.0.1:8002"))
    assert (page.status_code, "Rina" in page.text) == (200, True)
    await somebody(assignment, phone="+6289955550002", name="Yohana Tiur")
    code, by_name, errors = await said("link", "yohana  tiur")
    assert (code, by_name.startswith("http://127.0.0.1:8002/v/")) == (0, True), errors
    await somebody(assignment, phone="+6289955550003", name="Yohana Sari")
    code, _, errors = await said("link", "YOHAN")
    assert (code, "+6289955550002" in errors, "+6289955550003" in errors) == (1, True, True), errors
    code, _, errors = await said("link", "0899-5555-0009")
    assert (code, "No volunteer has" in errors) == (1, True)
    code, _, errors = await said("list", "--district", "19.05")
    assert (code, "There is no district 19.05" in errors) == (1, True)
