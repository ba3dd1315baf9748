"""`jangkau volunteers import --check`: a verdict for each row, and nothing is imported."""

import asyncio
import os
import sys
from pathlib import Path

from services.assignment.settings import AssignmentSettings
from shared.database import Database
from tests.broken_districts import PROJECT
from tests.conftest import MakeSettings
from tests.integration.conftest import one
from tests.office_files import as_workbook

HEAD = ["No.", "NIK", "Nama", "Peran/Jabatan", "No HP", "Desa", "Kapasitas", "Jadwal Tugas"]
SITI = [1, 1904016508900001, "Siti Astuti", "PSM", "081200000001", "Nibung", 2, ""]
BUDI = [2, 1904016508900002, "Budi", "Pendamping PKH", 81200000002, "Arung Dalam", 1, ""]


async def jangkau(environment: dict[str, str], *arguments: str) -> tuple[int | None, str]:
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli", "volunteers", "import", *arguments),
        env={**os.environ, **environment, "COLUMNS": "80"},
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await command.communicate()
    return command.returncode, said.decode()


async def test_check_says_what_would_become_of_each_row_and_imports_nothing(
    settings_without_kafka: MakeSettings, tmp_path: Path
) -> None:
    settings = await settings_without_kafka(AssignmentSettings)
    environment = {
        "JANGKAU_DATABASE_URL": settings.database_url,
        "JANGKAU_DISTRICTS": settings.districts,
    }
    database = Database(settings.database_url_of("assignment"), pool_size=1)
    count = "SELECT count(*) FROM volunteers"
    file = tmp_path / "relawan.xlsx"
    file.write_bytes(as_workbook([["DAFTAR RELAWAN"], [], HEAD, SITI, BUDI, []]))

    code, said = await jangkau(environment, "--check", str(file))
    assert code == 0, said
    assert said.splitlines() == [
        "relawan.xlsx: Not read and not kept: “No.”, “NIK”.",
        "row 4    new       Siti Astuti",
        "row 5    new       Budi",
        "2 new. Nothing was imported.",
    ]
    assert await one(database, count) == 0

    code, said = await jangkau(environment, str(file))
    assert (code, said.splitlines()[-1]) == (0, "2 added, 0 updated."), said
    moved = [*SITI[:5], "Arung Dalam", 3, "sen-jum 08:00-17:00"]
    broken = [3, 1904016508900003, "Ani", "TKSK", "8.12E+11", "Nibung", "dua", ""]
    new = [4, "", "Raden Ajeng Siti Nurhaliza Rahmawati Kusumaningtyas", "psm", "081200000004",
           "Nibung", "", ""]  # fmt: skip
    file.write_bytes(as_workbook([HEAD, moved, BUDI, broken, new]))
    code, said = await jangkau(environment, "--check", str(file))
    assert code == 1, said
    lines = said.splitlines()
    assert all(len(line) <= 80 for line in lines), said
    assert lines[1] == "row 2    changed   Siti Astuti"
    assert "         capacity: 2 → 3" in lines
    assert "         duty: empty → mon-fri 08:00-17:00" in lines
    assert any(line.startswith("         village: Nibung (19.04.01.") for line in lines)
    assert "row 3    unchanged Budi" in lines
    assert "row 4    refused   Ani" in lines
    assert "         Kapasitas: write a whole number" in lines
    assert any("No HP: the spreadsheet has rounded this number" in line for line in lines)
    assert (
        lines[-1] == "1 new, 1 changed, 1 unchanged, 1 refused. Nothing was imported, nor would be."
    )
    assert "1904016508" not in said
    assert await one(database, count) == 2
    code, said = await jangkau(environment, str(file))
    assert code == 1
    assert "relawan.xlsx: row 4, Kapasitas: write a whole number" in said
    assert await one(database, "SELECT sum(capacity) FROM volunteers") == 3
    await database.close()
