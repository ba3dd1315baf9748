"""Sheets as offices have them: CSV in any separator and encoding, Excel and OpenDocument workbooks.

What comes out is plain text in rows, numbered as a spreadsheet shows them. All of it is bounded. A
workbook is read by a process of its own with limited memory: a small file can claim a cell in the
last row of the last column, and to hold all between would take the machine with it.
"""

import csv
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

MOST_BYTES = 10_000_000
# 115 volunteers are 12 kB. What is more than this is no list of volunteers.
MOST_ROWS, MOST_COLUMNS, MOST_SHEETS = 20_000, 200, 20
LONGEST_CELL = 5_000
MOST_UNPACKED, MOST_PARTS = 60_000_000, 2_000
READER_MEMORY, READER_SECONDS = 1_500_000_000, 60

DELIMITERS = (",", ";", "\t", "|")
_ZIP, _OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


class Unreadable(Exception):
    """A file that is no table, with a sentence for whoever has it."""


@dataclass(frozen=True)
class Row:
    """The cells of one row, stripped; ``number`` as a spreadsheet shows it, from 1."""

    number: int
    cells: Sequence[str]

    @property
    def empty(self) -> bool:
        """Whether nothing is written in it."""
        return not any(self.cells)


@dataclass(frozen=True)
class Sheet:
    """One way to read a file: a sheet of a workbook, or a text with one separator."""

    name: str
    rows: Sequence[Row]
    is_text: bool


def read(content: bytes) -> list[Sheet]:
    """The sheets of a workbook, or a text once for each separator that is in it.

    Raises:
        Unreadable: it is no table, or too large to be one of volunteers.
    """
    if len(content) > MOST_BYTES:
        raise Unreadable(
            f"The file has {len(content):,} bytes; a list of volunteers has at most "
            f"{MOST_BYTES:,}. Delete pictures and other sheets."
        )
    if content.startswith(_ZIP):
        _check_unpacked(content)
        return _workbook(content)
    if content.startswith(_OLD_EXCEL):
        return _workbook(content)
    return _texts(_decoded(content))


# --- texts ----------------------------------------------------------------------------------------


def _decoded(content: bytes) -> str:
    text = _guessed(content)
    if "\x00" in text:
        raise Unreadable("The file is neither a text nor a workbook. Save it as CSV or as .xlsx.")
    return text


def _guessed(content: bytes) -> str:
    """UTF-8, what Excel calls Unicode text (UTF-16), or else Windows-1252."""
    try:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return content.decode("utf-16")
        if content[:200].count(0) * 3 > len(content[:200]):
            return content.decode("utf-16-le" if content[:2].endswith(b"\x00") else "utf-16-be")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        raise Unreadable(
            "The file is not a text that can be read. Save it as CSV UTF-8 or as .xlsx."
        ) from None


def _texts(text: str) -> list[Sheet]:
    first, _, rest = text.partition("\n")
    said = first.strip().strip('"').lower()
    # How Excel notes the separator; it shows no row for it.
    if said.startswith("sep=") and len(said) == 5:
        return [_text(rest, said[4])]
    found, refused = [], None
    for delimiter in [one for one in DELIMITERS if one in text] or [","]:
        try:
            found.append(_text(text, delimiter))
        except Unreadable as error:  # by a separator that it is not written with
            refused = refused or error
    if not found and refused:
        raise refused
    return found


def _text(text: str, delimiter: str) -> Sheet:
    rows = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for number, cells in enumerate(reader, start=1):
            rows.append(_row(number, cells))
    except csv.Error as error:
        raise Unreadable(f"row {len(rows) + 1}: {error}.") from None
    return Sheet("", rows, is_text=True)


def _row(number: int, cells: Iterable[str]) -> Row:
    if number > MOST_ROWS:
        raise Unreadable(f"The table has more than {MOST_ROWS:,} rows.")
    stripped = [cell.strip() for cell in cells]
    while stripped and not stripped[-1]:
        stripped.pop()
    if len(stripped) > MOST_COLUMNS:
        raise Unreadable(f"row {number}: there are more than {MOST_COLUMNS} columns.")
    if any(len(cell) > LONGEST_CELL for cell in stripped):
        raise Unreadable(f"row {number}: a cell has more than {LONGEST_CELL:,} characters.")
    return Row(number, stripped)


# --- workbooks ------------------------------------------------------------------------------------


def _check_unpacked(content: bytes) -> None:
    """How large a zip becomes, by unpacking it: what it says of itself may be a lie."""
    try:
        parts = zipfile.ZipFile(io.BytesIO(content)).infolist()
        if len(parts) > MOST_PARTS:
            raise Unreadable(f"The workbook has more than {MOST_PARTS:,} parts.")
        left = MOST_UNPACKED
        for part in parts:
            left -= _unpacked(content, part, at_most=left + 1)
            if left < 0:
                raise Unreadable(
                    f"The workbook unpacks to more than {MOST_UNPACKED:,} bytes. Copy the list "
                    "alone into a new workbook."
                )
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, NotImplementedError):
        raise Unreadable("The workbook is damaged. Save it again as .xlsx or CSV.") from None


def _unpacked(content: bytes, part: zipfile.ZipInfo, *, at_most: int) -> int:
    # APPNOTE.TXT 4.3.7: 30 bytes, the name, the extra field, then the data.
    start = part.header_offset
    name, extra = struct.unpack("<HH", content[start + 26 : start + 30])
    data = content[start + 30 + name + extra :][: part.compress_size]
    if part.compress_type == zipfile.ZIP_STORED:
        return len(data)
    if part.compress_type != zipfile.ZIP_DEFLATED:
        raise zipfile.BadZipFile
    return len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, at_most))


def _workbook(content: bytes) -> list[Sheet]:
    reader = subprocess.run(
        [sys.executable, "-m", "services.assignment.workbook"],
        input=content,
        capture_output=True,
        timeout=READER_SECONDS * 2,
        check=False,
    )
    if reader.returncode != 0:
        raise Unreadable(
            "The workbook cannot be read: it is protected, damaged, or claims far more cells than "
            "a list has. Copy the list alone into a new workbook, or save it as CSV."
        )
    return [
        Sheet(name, [_row(number, cells) for number, cells in enumerate(rows, start=1)], False)
        for name, rows in json.loads(reader.stdout)
    ]


def as_text(value: Any) -> str:
    """A cell of a workbook as one would have typed it."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case datetime():
            return str(value.date() if value.time() == time() else value.isoformat("T", "minutes"))
        case date() | time():
            return value.isoformat()
    return str(value)
