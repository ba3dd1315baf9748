"""One broken district is refused by name and holds up no other."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from shared.districts import DistrictError, Districts, refusal, why_not
from shared.health import Health
from shared.places import DistrictAway, PlaceError, resolve_place
from shared.policy_watch import PolicyWatch
from tests.broken_districts import BREAKAGES, BROKEN, WORKS, district, good_district


def broken(folder: Path, kind: str) -> Path:
    """One district that works, and one that is broken in this way."""
    good_district(folder)
    act, _ = BREAKAGES[kind]
    home = district(folder)
    act(home)
    return home


@pytest.mark.parametrize("kind", BREAKAGES)
def test_a_broken_district_is_refused_by_name_and_the_other_runs(kind: str, tmp_path: Path) -> None:
    broken(tmp_path, kind)
    districts = Districts([tmp_path], villages=False)
    assert list(districts) == [WORKS]
    assert list(districts.refused) == [BROKEN]
    told = districts.refused[BROKEN]
    assert BREAKAGES[kind][1] in told
    assert str(tmp_path / BROKEN) in told
    assert refusal(districts, BROKEN) == told
    assert refusal(districts, WORKS) is None
    assert told in why_not(districts, BROKEN)
    with pytest.raises(DistrictError, match=r"99\.01 is refused until its folder is mended"):
        districts.of(BROKEN)
    assert resolve_place(districts, subdistrict="Koba").district == WORKS


@pytest.mark.parametrize("kind", BREAKAGES)
def test_a_district_that_breaks_while_running_stays_as_it_was(kind: str, tmp_path: Path) -> None:
    good_district(tmp_path)
    home = district(tmp_path)
    districts = Districts([tmp_path], villages=False)
    before = districts[BROKEN]
    BREAKAGES[kind][0](home)
    _touch(tmp_path / WORKS / "policy.toml", "default_capacity = 2", "default_capacity = 5")
    # The other district's change counts all the same.
    assert districts.reload() == [WORKS]
    assert districts[WORKS].policy.default_capacity == 5
    assert districts[BROKEN] is before
    assert BREAKAGES[kind][1] in districts.refused[BROKEN]
    assert refusal(districts, BROKEN) is None, "it is in force"


def _touch(file: Path, before: str, after: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, after), encoding="utf-8")
    at = file.stat().st_mtime_ns + 1_000_000_000
    os.utime(file, ns=(at, at))


@pytest.mark.parametrize("kind", ["no policy", "a time zone that there is not"])
def test_a_district_that_was_refused_at_the_start_comes_in_when_mended(
    kind: str, tmp_path: Path
) -> None:
    home = broken(tmp_path, kind)
    districts = Districts([tmp_path], villages=False)
    for file in home.iterdir():
        file.unlink()
    home.rmdir()
    district(tmp_path)
    assert districts.reload() == [BROKEN]
    assert list(districts) == [WORKS, BROKEN]
    assert districts.refused == {}
    assert districts.problem is None


@given(kinds=st.lists(st.sampled_from([None, *BREAKAGES]), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_of_any_number_of_districts_exactly_the_broken_ones_are_refused(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str | None]
) -> None:
    folder = tmp_path_factory.mktemp("districts")
    codes = [f"99.1{number}" for number in range(len(kinds))]
    for code, kind in zip(codes, kinds, strict=True):
        home = district(folder, code)
        # What is done is written for 99.01.
        for file in home.iterdir() if kind else ():
            file.write_text(file.read_text().replace(code, BROKEN))
        if kind:
            BREAKAGES[kind][0](home)
    works = [code for code, kind in zip(codes, kinds, strict=True) if kind is None]
    if not works:
        with pytest.raises(DistrictError) as caught:
            Districts([folder], villages=False)
        assert all(f"/{code}" in str(caught.value) for code in codes)
        return
    districts = Districts([folder], villages=False)
    assert list(districts) == works
    assert sorted(districts.refused) == [code for code in codes if code not in works]


def test_a_folder_of_districts_that_is_not_there_is_named_and_the_rest_runs(tmp_path: Path) -> None:
    good_district(tmp_path / "ours")
    away = tmp_path / "not mounted"
    districts = Districts([away, tmp_path / "ours"], villages=False)
    assert list(districts) == [WORKS]
    assert districts.refused == {str(away): f"{away}: is not a folder"}


def test_what_may_not_be_read_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_district(tmp_path)
    home = district(tmp_path)
    read = Path.read_text

    def denied(self: Path, *args: Any, **more: Any) -> str:
        if self.parent == home:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *args, **more)

    monkeypatch.setattr(Path, "read_text", denied)
    districts = Districts([tmp_path], villages=False)
    assert list(districts) == [WORKS]
    assert districts.refused[BROKEN] == f"{home / 'places.toml'}: cannot be read: Permission denied"


def test_a_copy_left_beside_a_district_does_not_end_it(tmp_path: Path) -> None:
    home = good_district(tmp_path)
    copy = tmp_path / "19.04 (copy)"
    copy.mkdir()
    (copy / "places.toml").write_text((home / "places.toml").read_text())
    (tmp_path / "notes").mkdir()
    (tmp_path / "19.71").write_text("a file, no folder")
    districts = Districts([tmp_path], villages=False)
    assert list(districts) == [WORKS]
    assert "is 19.04, but the folder is named 19.04 (copy)" in districts.refused["19.04 (copy)"]


def test_a_neighbour_that_is_refused_does_not_take_the_district_with_it(tmp_path: Path) -> None:
    good_district(tmp_path)
    _touch(tmp_path / WORKS / "policy.toml", "neighbours = []", 'neighbours = ["99.01"]')
    (district(tmp_path) / "policy.toml").unlink()
    assert list(Districts([tmp_path], villages=False)) == [WORKS]


def test_what_the_caller_cannot_work_with_is_refused_by_itself(tmp_path: Path) -> None:
    good_district(tmp_path)
    district(tmp_path)
    districts = Districts(
        [tmp_path],
        villages=False,
        check=lambda one: "names the channel pigeon" if one.code == BROKEN else None,
    )
    assert list(districts) == [WORKS]
    assert districts.refused == {BROKEN: "names the channel pigeon"}


# --- what reporters hear ------------------------------------------------------------------------


@pytest.fixture
def one_away(tmp_path: Path) -> Districts:
    """The sample district works; 99.01 has lost its policy."""
    broken(tmp_path, "no policy")
    return Districts([tmp_path])


@pytest.mark.parametrize(
    "place",
    [
        {"district": BROKEN, "subdistrict": "Venice"},
        {"subdistrict": "99.01.002"},
        {"subdistrict": "Venice"},
        {"village": "9901002"},
        {"village": "Silver Lake"},
        {"latitude": 34.0, "longitude": -118.3},
    ],
)
def test_a_place_that_may_be_of_the_broken_district_is_for_later(
    one_away: Districts, place: dict[str, Any]
) -> None:
    with pytest.raises(DistrictAway, match=r"District 99\.01 cannot take reports at the moment"):
        resolve_place(one_away, **place)


@pytest.mark.parametrize(
    "place",
    [{"subdistrict": "Kobaa"}, {"village": "Koba Baru Lama", "district": "19.04"}, {}],
)
def test_a_mistake_in_the_working_district_stays_a_mistake(
    one_away: Districts, place: dict[str, Any]
) -> None:
    with pytest.raises(PlaceError) as caught:
        resolve_place(one_away, **place)
    assert not isinstance(caught.value, DistrictAway)


# --- what operators see -------------------------------------------------------------------------


def _gauge(**labels: str) -> float | None:
    return REGISTRY.get_sample_value("jangkau_district_refused", labels)


def test_metrics_and_status_name_the_district_and_say_whether_it_is_out_of_service(
    tmp_path: Path, one_away: Districts
) -> None:
    watch, health = PolicyWatch(one_away), Health()
    health.notices.append(watch.notices)
    watch._tell({})
    assert _gauge(district=BROKEN, in_force="no") == 1
    (notice,) = health.noticed()
    assert notice == (
        "district 99.01 is refused, and out of service: "
        f"{tmp_path / BROKEN / 'policy.toml'}: is missing"
    )
    assert health.problems() == [], "a restart would not help, so it says nothing to the supervisor"
    (tmp_path / WORKS / "policy.toml").unlink()
    one_away.reload()
    watch._tell({})
    assert _gauge(district=WORKS, in_force="yes") == 1
    assert any("19.04 is refused, and stays as it was before" in said for said in health.noticed())
