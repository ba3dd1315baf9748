"""Lists of volunteers as offices write them: the same people in any format, for the tests."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from openpyxl import Workbook

HEADINGS: Mapping[str, Sequence[str]] = {
    "name": ("name", "Nama", "NAMA LENGKAP", "Nama\nRelawan"),
    "role": ("role", "Peran", "Jabatan", "Peran/Jabatan", " PERAN / JABATAN "),
    "phone": ("phone", "No HP", "No. HP (WA)", "Nomor Telepon", "no_hp", "Telepon"),
    "email": ("email", "Surel", "Surel/Email", "E-mail", "Alamat Email"),
    "village": ("village", "Desa", "Kelurahan", "Desa/Kelurahan", "Desa / Kel."),
    "capacity": ("capacity", "Kapasitas"),
    "trainings": ("trainings", "Pelatihan"),
}
ROLES: Mapping[str, Sequence[str]] = {
    "psm": ("psm", "PSM", "Pekerja Sosial Masyarakat", "Pekerja Sosial Masyarakat (PSM)"),
    "tksk": ("TKSK", "Tenaga Kesejahteraan Sosial Kecamatan"),
    "pensosmas": ("Pensosmas", "Penyuluh Sosial"),
    "pkh": ("pkh", "Pendamping PKH", "PENDAMPING  PKH"),
}
IGNORED = ("No.", "NIK", "Alamat", "")
TITLES: Sequence[Sequence[Sequence[str]]] = (
    [],
    [[]],
    [["DAFTAR RELAWAN SOSIAL"], ["KABUPATEN BANGKA TENGAH TAHUN INI"], []],
    [[], ["Dinas Sosial; Pemberdayaan, Masyarakat"], ["", "", "Relawan"]],
)


def as_text(rows: Sequence[Sequence[Any]], delimiter: str, encoding: str, ending: str) -> bytes:
    """A CSV file as Excel or LibreOffice writes it."""
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=ending).writerows(rows)
    return file.getvalue().encode(encoding)


def as_workbook(rows: Sequence[Sequence[Any]], *, before: int = 0) -> bytes:
    """An .xlsx file; ``before`` are other sheets that stand before it."""
    book = Workbook()
    for number in range(before):
        sheet = book.active if number == 0 else book.create_sheet()
        sheet.title = f"Petunjuk {number}"
        sheet.append(["Isi lembar berikutnya", "Nama dinas"])
    sheet = book.create_sheet("Relawan") if before else book.active
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row, start=1):
            if value != "":
                sheet.cell(number, column, value)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()
