"""Workbooks are read by a process of their own: the same volunteers, and no bomb."""

import io
import zipfile
from typing import Any

import pytest

from services.assignment import volunteer_files
from shared.districts import District
from tests.office_files import as_text, as_workbook

ROWS: list[list[Any]] = [
    ["DAFTAR PSM"],
    [],
    [
        "No.",
        "NIK",
        "Nama Lengkap",
        "Jabatan",
        "No. HP (WA)",
        "Desa/Kelurahan",
        "Kapasitas",
        "Aktif",
    ],
    [1, 1904016508900001, "Siti Astuti", "Pendamping PKH", 81234567890, "Nibung", 2, True],
    [2, 1904016508900002, "Budi", "PSM", "0812 3456 7891", "Arung Dalam", 1.0, "tidak"],
    [3, 1904016508900003, "Ani", "TKSK", 6281234567892.0, "Nibung", "", "ya"],
    [],
]


def read(content: bytes, districts: dict[str, District]) -> volunteer_files.VolunteerFile:
    return volunteer_files.read_file(content, district=districts["19.04"], districts=districts)


def without_ids(found: volunteer_files.VolunteerFile) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "id"} for row in found.values()]


@pytest.mark.parametrize("before", [0, 2])
def test_a_workbook_brings_what_its_text_brings(
    before: int, districts: dict[str, District]
) -> None:
    written = [["yes" if cell is True else cell for cell in row] for row in ROWS]
    expected = without_ids(read(as_text(written, ";", "cp1252", "\r\n"), districts))
    found = read(as_workbook(ROWS, before=before), districts)
    assert without_ids(found) == expected
    assert [one["phone"] for one in expected] == [
        "+6281234567890", "+6281234567891", "+6281234567892",
    ]  # fmt: skip
    assert [one["on_duty"] for one in expected] == [True, False, True]
    assert "1904016508" not in repr(found)


def test_a_problem_in_a_workbook_has_its_row(districts: dict[str, District]) -> None:
    rows = [*ROWS[:5], [], ["", "", "Cici", "bos", "0812", "Nibung"]]
    problems = read(as_workbook(rows), districts).all_problems
    assert problems[0] == "row 7, Jabatan: write psm, tksk, pensosmas or pkh"
    assert problems[1].startswith("row 7, No. HP (WA): ")


def _changed(content: bytes, name: str, new: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w", 8) as book:
        for part in old.infolist():
            book.writestr(part.filename, new if part.filename == name else old.read(part))
    return made.getvalue()


def test_a_workbook_that_unpacks_to_too_much_is_refused_before_it_is_read(
    districts: dict[str, District],
) -> None:
    bomb = _changed(as_workbook(ROWS), "xl/worksheets/sheet1.xml", b" " * 70_000_000)
    assert len(bomb) < 200_000
    (problem,) = read(bomb, districts).all_problems
    assert "unpacks to more than 60,000,000 bytes" in problem


def test_what_a_zip_says_of_its_size_is_not_believed(districts: dict[str, District]) -> None:
    size = 70_000_000
    bomb = _changed(as_workbook(ROWS), "xl/worksheets/sheet1.xml", b" " * size)
    lie = bomb.replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lie != bomb
    (problem,) = read(lie, districts).all_problems
    assert "unpacks to more than 60,000,000 bytes" in problem


def test_a_cell_in_the_last_row_of_the_last_column_takes_no_machine_with_it(
    districts: dict[str, District],
) -> None:
    far = b"""<?xml version="1.0"?><worksheet
        xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>
        <row r="1"><c r="A1"><v>1</v></c></row>
        <row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>"""
    bomb = _changed(as_workbook(ROWS), "xl/worksheets/sheet1.xml", far)
    (problem,) = read(bomb, districts).all_problems
    assert "claims far more cells than a list has" in problem


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0" + bytes(600)])
def test_what_is_no_workbook_is_refused_in_a_sentence(
    content: bytes, districts: dict[str, District]
) -> None:
    (problem,) = read(content, districts).all_problems
    assert "workbook" in problem
