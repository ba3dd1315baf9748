"""What offices write above the columns of a list of volunteers, and what they call the roles."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.assignment.sheets import Row, Sheet

# How each of our columns is headed in the lists of Indonesian offices; letters and digits only.
NAMES: Mapping[str, str] = {
    "name": "name|nama|nama lengkap|nama relawan|nama petugas|nama anggota|nama pilar|nama psm|"
    "nama tksk|full name",
    "role": "role|peran|jabatan|peran jabatan|unsur|pilar|jenis pilar|jenis relawan|jenis petugas|"
    "unsur pilar|profesi",
    "phone": "phone|telepon|telp|tlp|hp|no hp|nomor hp|nomor telepon|no telepon|no telp|no tlp|"
    "nomor telp|handphone|no handphone|nomor handphone|ponsel|no ponsel|nomor ponsel|wa|no wa|"
    "nomor wa|whatsapp|no whatsapp|nomor whatsapp|kontak|no kontak|nomor kontak|phone number|"
    "mobile|mobile number",
    "email": "email|e mail|surel|alamat email|alamat e mail|alamat surel|email address",
    "village": "village|desa|kelurahan|desa kelurahan|kelurahan desa|desa kel|kel desa|nama desa|"
    "nama desa kelurahan|kode desa|domisili desa",
    "subdistrict": "subdistrict|kecamatan|kec|nama kecamatan|kode kecamatan",
    "latitude": "latitude|lat|lintang|garis lintang",
    "longitude": "longitude|long|lon|lng|bujur|garis bujur",
    "categories": "categories|category|kategori|kategori kasus|kategori ppks|jenis kasus|"
    "jenis ppks",
    "capacity": "capacity|kapasitas|kapasitas kasus|jumlah kasus maksimal|maksimal kasus",
    "trainings": "trainings|training|pelatihan|diklat|pelatihan yang diikuti",
    "language": "language|bahasa",
    "duty": "duty|duty times|jadwal|jadwal tugas|jadwal piket|jam tugas|jam piket|waktu tugas",
    "off_until": "off until|cuti sampai|libur sampai|cuti hingga|libur hingga",
    "on_duty": "on duty|aktif|siaga|bertugas|status aktif",
    "channel": "channel|saluran|kanal|lewat",
}
ROLES: Mapping[str, str] = {
    "psm": "psm|pekerja sosial masyarakat",
    "tksk": "tksk|tenaga kesejahteraan sosial kecamatan",
    "pensosmas": "pensosmas|penyuluh sosial|penyuluh sosial masyarakat",
    "pkh": "pkh|pendamping pkh|pendamping program keluarga harapan|pendamping sosial pkh|"
    "pendamping sosial program keluarga harapan",
}
_COLUMN_OF = {name: column for column, names in NAMES.items() for name in names.split("|")}
_ROLE_OF = {name: role for role, names in ROLES.items() for name in names.split("|")}
# So far down a heading is looked for, below titles and logos.
LOOKED_AT = 40


def plain(text: str) -> str:
    """Small letters and digits, with single spaces: ``No. HP`` is ``no hp``."""
    return " ".join(re.sub(r"[^a-z0-9]+", " ", text.lower()).split())


def column_of(heading: str) -> str | None:
    """Our column under a heading, as a whole or in its parts: ``No. HP (WA)``, ``Surel/Email``."""
    parts = [heading, *re.split(r"[/()\[\]\n,&]|\batau\b", heading)]
    return next((_COLUMN_OF[plain(part)] for part in parts if plain(part) in _COLUMN_OF), None)


def role_of(text: str) -> str | None:
    """The role that is meant: ``PSM``, ``Pendamping PKH``, ``Pekerja Sosial Masyarakat (PSM)``."""
    if plain(text) in _ROLE_OF:
        return _ROLE_OF[plain(text)]
    inside = re.fullmatch(r"([^()]*)\(([^()]*)\)\s*", text)
    found = {_ROLE_OF.get(plain(part)) for part in inside.groups()} if inside else {None}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Table:
    """A heading and what is below it. ``columns`` are the positions of each of our columns, by
    its name; ``ignored`` the headings of those that are not read."""

    heading: Row
    columns: Mapping[str, Sequence[int]]
    ignored: Sequence[str]
    rows: Sequence[Row]
    is_text: bool

    def heading_of(self, column: str) -> str:
        """How a column is headed in the file; its own name if it is not there."""
        positions = self.columns.get(column)
        return " ".join(self.heading.cells[positions[0]].split()) if positions else column

    def value(self, row: Row, column: str) -> str:
        """What stands in a column: the first that is filled, where two are of one kind."""
        cells = (row.cells[at] for at in self.columns.get(column, ()) if at < len(row.cells))
        return next((cell for cell in cells if cell), "")

    def beyond(self, row: Row) -> bool:
        """Whether the row goes on behind the last heading."""
        return any(row.cells[len(self.heading.cells) :])


def find(sheets: Sequence[Sheet], *, needed: Sequence[str]) -> Table | None:
    """The first table with the needed columns; else the one with the most of ours; else None."""
    best: Table | None = None
    for sheet in sheets:
        for position, row in enumerate(sheet.rows[:LOOKED_AT]):
            table = _table(sheet, position, row)
            if best is None or _fits(table, needed) > _fits(best, needed):
                best = table
    return best if best is not None and best.columns else None


def _fits(table: Table, needed: Sequence[str]) -> tuple[int, int]:
    return sum(name in table.columns for name in needed), len(table.columns)


def _table(sheet: Sheet, position: int, row: Row) -> Table:
    columns: dict[str, list[int]] = {}
    ignored = []
    for at, heading in enumerate(row.cells):
        if column := column_of(heading):
            columns.setdefault(column, []).append(at)
        elif heading:
            ignored.append(" ".join(heading.split()))
    below = [one for one in sheet.rows[position + 1 :] if not one.empty]
    return Table(row, columns, ignored, below, sheet.is_text)
