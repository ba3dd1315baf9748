"""Lists of volunteers as offices have them, in every form of text."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.assignment import headings, volunteer_files
from services.assignment.sheets import MOST_BYTES, MOST_ROWS
from services.assignment.volunteer_files import VolunteerFile
from shared.districts import District
from tests.office_files import HEADINGS, IGNORED, ROLES, TITLES, as_text

NIK = "1904016508900001"

names = st.from_regex(r"[A-Z][a-zé]{2,9} [A-Z][a-z]{2,9}( S\.Sos)?", fullmatch=True)
people = st.fixed_dictionaries(
    {
        "name": names,
        "role": st.sampled_from(sorted(ROLES)),
        "phone": st.integers(81_200_000_000, 81_299_999_999),
        "email": st.sampled_from(["", "siti@example.org"]),
        "village": st.sampled_from(["Berok", "19.04.01.1002", "Desa Nibung", "Arung Dalam"]),
        "capacity": st.sampled_from(["", "1", "3"]),
        "trainings": st.sampled_from(["", "first_aid", "first_aid;mental_health"]),
    }
)
phones = st.sampled_from(["0{}", "+62{}", "62{}", "{}", "{}.0", "'0{}", "0{} ", "+62 {}", "(0{})"])


def read(content: bytes, districts: dict[str, District]) -> VolunteerFile:
    return volunteer_files.read_file(content, district=districts["19.04"], districts=districts)


def known_by(found: VolunteerFile) -> list[dict[str, Any]]:
    """What would be stored, without the ids that are new each time."""
    return [{k: v for k, v in values.items() if k != "id"} for values in found.values()]


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Volunteers, and the same as somebody has written them down."""
    found = draw(st.lists(people, min_size=1, max_size=6, unique_by=lambda one: one["phone"]))
    headed: list[str] = [*HEADINGS, *IGNORED[: draw(st.integers(0, 4))]]
    columns = draw(st.permutations(headed))
    heading = [draw(st.sampled_from(HEADINGS[c])) if c in HEADINGS else c for c in columns]
    rows: list[list[Any]] = [*map(list, draw(st.sampled_from(TITLES))), heading]
    for one in found:
        written = {
            **one,
            "role": draw(st.sampled_from(ROLES[str(one["role"])])),
            "phone": draw(phones).format(one["phone"]),
            **dict.fromkeys(IGNORED, NIK),
            "": "",
        }
        rows.append([written[column] for column in columns])
        rows += [[""] * len(columns)] * draw(st.integers(0, 2))
    return found, rows + [[""] * (len(columns) + draw(st.integers(0, 3)))] * draw(st.integers(0, 4))


@given(
    written=lists(),
    delimiter=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=100)
def test_the_same_volunteers_in_any_form_are_the_same(
    districts: dict[str, District],
    written: tuple[list[dict[str, Any]], list[list[Any]]],
    delimiter: str,
    encoding: str,
    ending: str,
) -> None:
    found, rows = written
    plain = [
        list(HEADINGS),
        *([f"+62{one[name]}" if name == "phone" else one[name] for name in HEADINGS]
          for one in found),
    ]  # fmt: skip
    expected = known_by(read(as_text(plain, ",", "utf-8", "\n"), districts))
    assert [one["phone"] for one in expected] == [f"+62{one['phone']}" for one in found]
    got = read(as_text(rows, delimiter, encoding, ending), districts)
    assert known_by(got) == expected
    assert NIK not in repr(got)


ROW = "Siti,psm,{},Berok\n"


@pytest.mark.parametrize(
    ("phone", "said"),
    [
        ("8.12E+11", "No HP: the spreadsheet has rounded this number, and its digits are lost; "
                     "format the column as text and write the number again, with its 0"),
        ("8,1234E+10", "the spreadsheet has rounded this number"),
        ("6.28E+12", "the spreadsheet has rounded this number"),
        ("0812 3456 7890 / 0813 1111 2222", "these are two numbers; write the one that takes SMS"),
        ("0718-61234", "No HP: (0718) 61234 is a landline: no SMS reaches it; give a mobile number "
                       "or an e-mail"),
        ("021 555 1234", "is a landline"),
        ("tidak ada", "No HP: This is not a telephone number"),
    ],
)  # fmt: skip
def test_a_number_that_no_sms_reaches_is_named_with_what_to_do(
    phone: str, said: str, districts: dict[str, District]
) -> None:
    content = "DAFTAR\n\nNama;Peran;No HP;Desa\n" + f'Siti;psm;"{phone}";Berok\n'
    (problem,) = read(content.encode(), districts).all_problems
    assert problem.startswith("row 4, No HP: ")
    assert said in problem


def test_a_landline_beside_an_email_is_kept(districts: dict[str, District]) -> None:
    content = b"name,role,phone,email,village\nSiti,psm,0718-61234,siti@example.org,Berok\n"
    (siti,) = read(content, districts).values()
    assert siti["phone"] == "+6271861234"


def test_a_problem_names_the_row_as_excel_shows_it_and_the_column_as_it_is_headed(
    districts: dict[str, District],
) -> None:
    content = 'Judul\nNama,Peran,"Nomor\nTelepon",Desa\n\n"Siti\nAstuti",bos,0812,Berokk\n'
    problems = read(content.encode(), districts).all_problems
    assert problems[0] == "row 4, Peran: write psm, tksk, pensosmas or pkh"
    assert problems[1].startswith("row 4, Nomor Telepon: This is not a telephone number")
    only_place = read(b"Nama,Peran,HP,Desa\nSiti,psm,081200000001,Berokk\n", districts)
    (problem,) = only_place.all_problems
    assert problem.startswith("row 2, Desa: Village")
    assert "did you mean" in problem


def test_what_is_not_read_is_said_and_never_kept(districts: dict[str, District]) -> None:
    content = f"No.,Nama,NIK,Peran,HP,WA,Desa\n1,Siti,{NIK},psm,,081200000001,Berok\n"
    found = read(content.encode(), districts)
    assert found.notices == [
        "Not read and not kept: “No.”, “NIK”.",
        "Of “HP”, “WA” the first that is filled counts.",
    ]
    assert NIK not in repr(found)


def test_one_person_twice_is_seen_by_contact_and_guessed_by_name(
    districts: dict[str, District],
) -> None:
    head = "Nama,Peran,HP,Desa\nSiti A,psm,081200000001,Berok\n"
    found = read((head + "Sitti A,psm,+6281200000001,Berok\n").encode(), districts)
    assert found.all_problems == ["row 3, HP: the same contact as in row 2"]
    found = read((head + "SITI A.,psm,081200000002,Berok\n").encode(), districts)
    assert found.all_problems == []
    assert found.notices == [
        "row 3: the same name and village as in row 2; is it one person twice?"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "There is no heading"),
        (b"\x7fELF\x01\x00\x02\x03" * 100, "neither a text nor a workbook"),
        (b"%PDF-1.7 \x81\x8d", "not a text that can be read"),
        (b"a" * (MOST_BYTES + 1), "The file has 10,000,001 bytes"),
        (b"name,role\n" + b"x,psm\n" * MOST_ROWS, "more than 20,000 rows"),
        (b"name,role," + b"x," * 300 + b"\n", "more than 200 columns"),
        (b"name,role\n" + b"a" * 6000 + b",psm\n", "a cell has more than 5,000 characters"),
        (b"PK\x03\x04 not a zip", "damaged"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_list_is_refused_in_a_sentence(
    content: bytes, said: str, districts: dict[str, District]
) -> None:
    (problem,) = read(content, districts).all_problems
    assert said in problem


def test_no_heading_stands_for_two_of_our_columns() -> None:
    every = [name for names in headings.NAMES.values() for name in names.split("|")]
    assert len(every) == len(set(every))
    assert all(headings.plain(name) == name for name in every)


@pytest.mark.parametrize("role", ["Ketua PSM", "PSM (TKSK)", "sopir", "", "PKH dan PSM"])
def test_a_role_that_may_be_another_is_not_guessed(role: str) -> None:
    assert headings.role_of(role) is None


def test_a_village_is_told_apart_by_its_subdistrict(districts: dict[str, District]) -> None:
    content = b"Nama,Jabatan,HP,Kelurahan,Kecamatan\nSiti,PSM,081200000001,Berok,Kec. Koba\n"
    (siti,) = read(content, districts).values()
    assert siti["village"] == "19.04.01.1017"
    content = b"Nama,Jabatan,HP,Desa,Kecamatan\nSiti,PSM,081200000001,Berok,Namang\n"
    (problem,) = read(content, districts).all_problems
    assert problem.startswith("row 2, Desa: ")
