"""A district that is made for a file of reports."""

import csv
from datetime import timedelta
from pathlib import Path

import pytest

from ops.synthetic import CAPACITY, DISTRICT, BrokenReports, make_district, read_reports
from shared.districts import Districts
from shared.places import great_circle_m

HEADER = "reported_at,latitude,longitude,type,channel,area\n"
LINE = "2018-04-01T10:00:00,34.05,-118.25,Homeless Encampment,App,Downtown\n"


def write(folder: Path, content: str) -> Path:
    file = folder / "reports.csv"
    file.write_text(content, encoding="utf-8")
    return file


def test_reports_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    later = LINE.replace("2018-04-01", "2018-05-01")
    planned = read_reports(write(tmp_path, HEADER + later + LINE))
    assert [one.at.month for one in planned] == [4, 5]
    assert planned[0].body == {
        "place": {"latitude": 34.05, "longitude": -118.25},
        "category": "homeless",
        "channel": "app",
        "area": "Downtown",
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINE.replace("34.05", "north"), "could not convert string to float"),
        (LINE.replace("2018-04-01T10:00:00", "yesterday"), "Invalid isoformat string"),
        (LINE.replace("34.05,-118.25", ","), "neither a position nor a place name"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(BrokenReports) as refused:
        read_reports(write(tmp_path, HEADER + LINE + line))
    assert str(refused.value).startswith("reports.csv: line 3: ")
    assert said in str(refused.value)


def test_a_line_that_is_too_short_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokenReports, match=r"reports\.csv: line 3: "):
        read_reports(write(tmp_path, HEADER + LINE + "2018-04-01T10:00:00\n"))


def test_a_file_without_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenReports, match="the column reported_at is missing"):
        read_reports(write(tmp_path, "latitude,longitude\n1,2\n"))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenReports, match="no report in it"):
        read_reports(write(tmp_path, HEADER))


def test_the_district_that_is_made_can_be_loaded_and_holds_its_reports(tmp_path: Path) -> None:
    lines = [
        LINE,
        LINE.replace("34.05", "34.15")
        .replace("Downtown", 'Venice "Beach"')
        .replace('Venice "Beach"', '"Venice ""Beach"""'),
    ]
    planned = read_reports(write(tmp_path, HEADER + "".join(lines * 10)))
    volunteers = make_district(planned, tmp_path / "districts")
    district = Districts([tmp_path / "districts"])[DISTRICT]
    assert {one.name for one in district.subdistricts} == {"Downtown", 'Venice "Beach"'}
    assert set(district.policy.parallel.values()) == {1}
    assert district.policy.steps_m == (40_000,)
    assert district.policy.rest == timedelta(0)
    assert district.policy.default_capacity == CAPACITY
    assert len(district.policy.coordinators_of(district.subdistricts[0].code)) == 1
    with volunteers.open(encoding="utf-8") as file:
        homes = list(csv.DictReader(file))
    assert len(homes) == 10
    assert len({home["phone"] for home in homes}) == 10
    for home in homes:
        nearest = min(
            great_circle_m(
                float(home["latitude"]),
                float(home["longitude"]),
                one.body["place"]["latitude"],
                one.body["place"]["longitude"],
            )
            for one in planned
        )
        assert nearest < 2_000


def test_the_same_file_gives_the_same_volunteers(tmp_path: Path) -> None:
    planned = read_reports(write(tmp_path, HEADER + LINE * 5))
    first = make_district(planned, tmp_path / "one").read_text(encoding="utf-8")
    assert make_district(planned, tmp_path / "two").read_text(encoding="utf-8") == first
