"""Volunteers: a file is imported whole or not at all, and only the agency sees them."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.assignment import volunteers
from services.assignment.app import compose
from services.assignment.settings import AssignmentSettings
from services.assignment.volunteers import BrokenFile, Imported
from shared.database import Database
from shared.districts import District
from tests.conftest import SAMPLE_DISTRICT, MakeSettings
from tests.integration.conftest import Door, one, open_door, rows, run
from tests.servers import PROJECT, Databases

SAMPLE = PROJECT / "districts" / SAMPLE_DISTRICT / "volunteers.csv"
HEADER = "name,role,phone,email,village,latitude,longitude,categories,capacity\n"
SITI = "Siti,psm,081200000001,,19.04.01.1002,,,,2\n"

Districts = dict[str, District]


async def import_text(database: Database, content: str, districts: Districts) -> Imported:
    district = districts[SAMPLE_DISTRICT]
    read = volunteers.read_csv(content, district=district, districts=districts)
    async with database.transaction() as session:
        return await volunteers.store(session, read, district=district)


async def test_the_sample_file_is_imported_whole(
    assignment_database: Database, districts: Districts
) -> None:
    content = SAMPLE.read_text(encoding="utf-8")
    assert await import_text(assignment_database, content, districts) == Imported(115, 0)
    found = await rows(
        assignment_database,
        "SELECT role, count(*) AS n, bool_and(available) AS free FROM volunteers GROUP BY role",
    )
    assert {row.role: row.n for row in found}["tksk"] == 6
    assert all(row.free for row in found)


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
    await run(assignment_database, "UPDATE volunteers SET open_cases = 2")
    fewer = SITI.replace(",2\n", ",1\n")
    await import_text(assignment_database, HEADER + fewer, districts)
    (siti,) = await rows(assignment_database, "SELECT capacity, available FROM volunteers")
    assert siti == (2, False)


async def test_the_file_may_come_from_a_spreadsheet(
    assignment_database: Database, districts: Districts
) -> None:
    content = "\ufeff" + "Name, ROLE ,phone\r\n" + " Siti , PSM ,0812-0000-0001\r\n"
    with pytest.raises(BrokenFile, match="line 2"):  # no place: it says so, the header is fine
        await import_text(assignment_database, content, districts)
    content = "\ufeffName, ROLE ,phone,village\r\n Siti , PSM ,0812-0000-0001, Berok \r\n"
    assert await import_text(assignment_database, content, districts) == Imported(1, 0)
    assert await rows(assignment_database, "SELECT name, role, phone FROM volunteers") == [
        ("Siti", "psm", "+6281200000001")
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ["line 1: the column name is missing", "line 1: the column role is missing"]),
        (HEADER, ["line 1: the file has no volunteers"]),
        ("name,role,shoesize\n", ["line 1: unknown column 'shoesize'; known are name, role"]),
        (HEADER + SITI + SITI, ["line 3: the same contact as in line 2"]),
        (HEADER + ",psm,081200000001,,Berok,,,,\n", ["line 2: name: "]),
        (HEADER + SITI.replace("psm", "boss"), ["line 2: role: "]),
        (HEADER + SITI.replace("081200000001", "12"), ["line 2: phone: This is not a telephone"]),
        (HEADER + SITI.replace("081200000001", ""), ["line 2: phone or email: one of them is"]),
        (HEADER + SITI.replace(",,19.04", ",nobody,19.04"), ["line 2: email: "]),
        (HEADER + SITI.replace("1002", "9999"), ["line 2: village: "]),
        (HEADER + "Siti,psm,081200000001,,,-6.2,106.8,,\n", ["line 2: latitude: ", "far outside"]),
        (HEADER + "Siti,psm,081200000001,,,x,106.8,,\n", ["line 2: latitude: "]),
        (HEADER + SITI.replace(",2\n", ",0\n"), ["line 2: capacity: "]),
        (HEADER + SITI.replace(",,2\n", ",homeless;alien,2\n"), ["line 2: categories: "]),
        (HEADER + SITI.replace("\n", ",more,\n"), ["line 2: has more values than the header"]),
        (HEADER + SITI.replace("Siti", "Si\x00ti"), ["line 2: name: "]),
        (
            HEADER + SITI + SITI.replace("psm", "boss") + "\n" + ",,,,,,,,\n",
            ["line 3: role: ", "line 5: name: "],
        ),
    ],
    ids=lambda value: repr(value)[-50:],
)
async def test_a_broken_row_is_named_with_its_reason(
    content: str, said: list[str], districts: Districts
) -> None:
    with pytest.raises(BrokenFile) as refused:
        volunteers.read_csv(content, district=districts[SAMPLE_DISTRICT], districts=districts)
    for part in said:
        assert part in str(refused.value), refused.value.problems
    assert all(problem.startswith("line ") for problem in refused.value.problems)


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
    assert "volunteers.csv: line 117: role: " in said
    assert "Nothing was imported" in said
    assert await one(database, "SELECT count(*) FROM volunteers") == 0
    file.write_text(content, encoding="utf-8")
    code, said = await imported()
    assert code == 0, said
    assert "115 added, 0 updated." in said
    assert await one(database, "SELECT count(*) FROM volunteers") == 115
    await database.close()


# --- GET /v1/volunteers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def assignment(databases: Databases, districts: Districts) -> AsyncIterator[Door]:
    """Assignment with the sample volunteers, and a token that shows them."""
    name = f"jangkau_{databases.run}_listed"
    await databases.create("assignment", f"{name}_assignment")
    url = f"{databases.server}/{name}_{{service}}"
    door = open_door(compose(AssignmentSettings(database_url=url, agency_token=SecretStr("hush"))))
    await import_text(door.database, SAMPLE.read_text(encoding="utf-8"), districts)
    yield door
    await door.close()
    await databases.drop([f"{name}_assignment"])


BEARER = {"Authorization": "Bearer hush"}


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
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "hush"}]
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
    assert answer.status_code == 422
