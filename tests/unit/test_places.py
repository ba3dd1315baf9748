import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.districts import District, Districts, Subdistrict, Village
from shared.places import EARTH_RADIUS_M, PlaceError, great_circle_m, resolve_place

DISTRICTS = Districts([Path(__file__).parents[2] / "districts"])
BANGKA_TENGAH = DISTRICTS["19.04"]
KNOWN = {"19.04": BANGKA_TENGAH}

# A made-up neighbour that has a Koba and a Terak of its own.
NEIGHBOUR = District(
    code="99.02",
    name="Kabupaten Sebelah",
    province="Trial",
    timezone="Asia/Jakarta",
    reach_km=30,
    subdistricts=(
        Subdistrict("99.02.01", "Koba", -1.9, 106.1, 9000),
        Subdistrict("99.02.02", "Sukamaju", -1.8, 106.0, 9000),
    ),
    villages=(
        Village("99.02.01.2001", "Terak", "99.02.01"),
        Village("99.02.02.2001", "Terak", "99.02.02"),
        Village("99.02.02.2002", "Desa Baru", "99.02.02"),
    ),
    policy=BANGKA_TENGAH.policy,
)
BOTH = {"19.04": BANGKA_TENGAH, "99.02": NEIGHBOUR}

latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)
points = st.tuples(latitudes, longitudes)


def _refused(districts: dict[str, District] = KNOWN, **given: float | str | None) -> PlaceError:
    with pytest.raises(PlaceError) as caught:
        resolve_place(districts, **given)  # type: ignore[arg-type]
    assert str(caught.value) == caught.value.message
    return caught.value


# --- great_circle_m ----------------------------------------------------------------------------


@given(points, points)
def test_a_distance_is_the_same_there_and_back(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    assert great_circle_m(*one, *other) == pytest.approx(great_circle_m(*other, *one), abs=1e-6)


@given(points, points)
def test_no_distance_is_longer_than_half_the_earth(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    assert 0 <= great_circle_m(*one, *other) <= math.pi * EARTH_RADIUS_M


@given(points)
def test_a_point_is_at_no_distance_from_itself(point: tuple[float, float]) -> None:
    assert great_circle_m(*point, *point) == 0


@given(points, points, points)
def test_a_detour_is_never_shorter(
    start: tuple[float, float], via: tuple[float, float], end: tuple[float, float]
) -> None:
    straight = great_circle_m(*start, *end)
    # Near antipodes the formula is good to about a metre: there a small error in h is a large one.
    assert straight <= great_circle_m(*start, *via) + great_circle_m(*via, *end) + 1.0


@given(latitudes, longitudes)
def test_a_full_turn_of_longitude_changes_nothing(latitude: float, longitude: float) -> None:
    here = great_circle_m(latitude, longitude, -2.5, 106.4)
    assert great_circle_m(latitude, longitude + 360, -2.5, 106.4) == pytest.approx(here, abs=1)


@pytest.mark.parametrize(
    ("one", "other", "metres"),
    [
        ((0, 0), (0, 90), EARTH_RADIUS_M * math.pi / 2),
        ((-90, 0), (90, 77), EARTH_RADIUS_M * math.pi),
        ((0, 0), (0, 180), EARTH_RADIUS_M * math.pi),
        ((0, 179.5), (0, -179.5), EARTH_RADIUS_M * math.radians(1)),
        # A quarter of a great circle between any point and the pole of its meridian's circle.
        ((45, 0), (0, 90), EARTH_RADIUS_M * math.pi / 2),
        # What earth_distance(ll_to_earth(…), ll_to_earth(…)) of PostgreSQL 18 answers, from Koba.
        ((-2.493, 106.408), (-6.2, 106.8), 414_950.1955836977),
        ((-2.493, 106.408), (52.52, 13.405), 10_442_402.94863871),
        ((-2.493, 106.408), (-2.17, 106.14), 46_705.87697173584),
        ((-2.493, 106.408), (-2.4931, 106.408), 11.132003184525436),
    ],
)
def test_known_distances(
    one: tuple[float, float], other: tuple[float, float], metres: float
) -> None:
    assert great_circle_m(*one, *other) == pytest.approx(metres, rel=1e-9)


# --- by position -------------------------------------------------------------------------------


def test_a_position_belongs_to_the_nearest_subdistrict_and_is_exact() -> None:
    place = resolve_place(KNOWN, latitude=-2.5, longitude=106.4)
    assert (place.district, place.subdistrict, place.subdistrict_name) == (
        "19.04",
        "19.04.01",
        "Koba",
    )
    assert (place.latitude, place.longitude) == (-2.5, 106.4)
    assert (place.centre_latitude, place.centre_longitude) == (-2.493, 106.408)
    assert not place.approximate
    assert place.radius_m == 0
    assert place.village is None


@given(st.floats(-2.9, -1.9), st.floats(105.7, 106.9))
def test_no_other_centre_is_nearer_than_the_chosen_one(latitude: float, longitude: float) -> None:
    distances = {
        one.code: great_circle_m(latitude, longitude, one.latitude, one.longitude)
        for one in BANGKA_TENGAH.subdistricts
    }
    nearest = min(distances.values())
    if nearest > BANGKA_TENGAH.reach_km * 1000:
        assert _refused(latitude=latitude, longitude=longitude).field == "place.latitude"
    else:
        chosen = resolve_place(KNOWN, latitude=latitude, longitude=longitude).subdistrict
        assert distances[chosen] == pytest.approx(nearest, abs=0.01)


@pytest.mark.parametrize(
    ("latitude", "longitude", "subdistrict"),
    [
        (-2.57, 106.85, "19.04.06"),  # Tanjung Beriga, the eastern cape
        (-2.41, 107.06, "19.04.06"),  # the island of Gelasa
        (-2.75, 106.55, "19.04.06"),  # the southern border
        (-2.36, 105.78, "19.04.03"),  # the islands off Sungai Selan
        (-2.10, 106.10, "19.04.02"),  # the border of Pangkalpinang
    ],
)
def test_the_edges_of_the_district_are_inside(
    latitude: float, longitude: float, subdistrict: str
) -> None:
    assert resolve_place(KNOWN, latitude=latitude, longitude=longitude).subdistrict == subdistrict


@pytest.mark.parametrize(
    ("latitude", "longitude", "kilometres"),
    [
        (0.0, 0.0, "11,796"),
        (-6.2, 106.8, "406"),  # Jakarta
        (-2.74, 107.63, "116"),  # Tanjung Pandan on Belitung
        (-2.87, 107.42, "97"),  # Mendanau, the western island of Belitung
        (2.493, -73.592, "19,988"),  # the other side of the earth
    ],
)
def test_a_point_far_outside_is_refused_with_the_nearest_district(
    latitude: float, longitude: float, kilometres: str
) -> None:
    error = _refused(latitude=latitude, longitude=longitude)
    assert error.field == "place.latitude"
    assert error.message == (
        f"The point {latitude}, {longitude} is far outside every known district; "
        f"the nearest is Kabupaten Bangka Tengah, {kilometres} km away."
    )


def test_zero_zero_is_refused_even_where_a_district_lies_there() -> None:
    gulf = replace(NEIGHBOUR, subdistricts=(Subdistrict("99.02.01", "Gulf", 0.1, 0.1, 9000),))
    assert resolve_place({"99.02": gulf}, latitude=0.1, longitude=0).subdistrict == "99.02.01"
    assert "far outside" in _refused({"99.02": gulf}, latitude=0, longitude=0).message


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 90.001, -91, 1e308])
def test_a_latitude_that_is_none_is_refused(wrong: float) -> None:
    error = _refused(latitude=wrong, longitude=106.4)
    assert error.field == "place.latitude"
    assert "between -90 and 90" in error.message


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 180.5, -181])
def test_a_longitude_that_is_none_is_refused(wrong: float) -> None:
    assert _refused(latitude=-2.5, longitude=wrong).field == "place.longitude"


def test_half_a_position_is_refused_even_with_a_name() -> None:
    assert _refused(latitude=-2.5, subdistrict="Koba").field == "place.longitude"
    assert _refused(longitude=106.4, subdistrict="Koba").field == "place.latitude"


def test_nothing_at_all_is_refused() -> None:
    assert _refused().field == "place"
    assert _refused(village=" ", subdistrict="").field == "place"


def test_a_position_between_two_districts_goes_to_the_one_that_reaches_it() -> None:
    # 40 km from the neighbour, which reaches 30, and 44 from Pangkalan Baru, which reaches 60.
    place = resolve_place(BOTH, latitude=-1.9, longitude=106.46)
    assert place.district == "19.04"
    assert resolve_place(BOTH, latitude=-1.9, longitude=106.3).district == "99.02"


def test_a_given_district_narrows_a_position() -> None:
    anywhere = resolve_place(BOTH, latitude=-1.9, longitude=106.2)
    own = resolve_place(BOTH, latitude=-1.9, longitude=106.2, district="19.04")
    assert anywhere.district == "99.02"
    assert own.subdistrict == "19.04.02"


def test_an_unknown_district_is_refused_with_the_known_ones() -> None:
    error = _refused(BOTH, district="12.01", subdistrict="Koba")
    assert error.field == "place.district"
    assert error.message == (
        "District 12.01 is not known; "
        "known are 19.04 Kabupaten Bangka Tengah, 99.02 Kabupaten Sebelah."
    )


def test_without_any_district_every_place_is_refused_in_words() -> None:
    errors = (
        _refused({}, latitude=-2.5, longitude=106.4),
        _refused({}, village="Terak"),
        _refused({}, subdistrict="Koba"),
        _refused({}, subdistrict="19.04.01"),
        _refused({}, district="19.04"),
    )
    for error in errors:
        assert error.message.endswith(".")
        assert "known are" not in error.message


# --- by name and by code -----------------------------------------------------------------------


@pytest.mark.parametrize("subdistrict", BANGKA_TENGAH.subdistricts, ids=lambda one: one.code)
def test_a_subdistrict_is_found_by_code_and_by_name(subdistrict: Subdistrict) -> None:
    for text in (subdistrict.code, subdistrict.code.replace(".", ""), subdistrict.name):
        place = resolve_place(KNOWN, subdistrict=text)
        assert place.subdistrict == subdistrict.code
        assert (place.latitude, place.longitude) == (subdistrict.latitude, subdistrict.longitude)
        assert place.approximate
        assert place.radius_m == subdistrict.radius_m
        assert place.village is None


@pytest.mark.parametrize("village", BANGKA_TENGAH.villages, ids=lambda one: one.code)
def test_a_village_is_found_by_code_and_by_name(village: Village) -> None:
    for text in (village.code, village.code.replace(".", ""), village.name):
        place = resolve_place(KNOWN, village=text)
        assert (place.village, place.village_name) == (village.code, village.name)
        assert place.subdistrict == village.subdistrict
        assert (place.latitude, place.longitude) == (place.centre_latitude, place.centre_longitude)
        assert place.approximate


@given(
    village=st.sampled_from(BANGKA_TENGAH.villages),
    prefix=st.sampled_from(["", "Desa ", "desa  ", "Kelurahan ", "Kel.", "KEL. ", "Ds. ", " ds "]),
    gap=st.sampled_from([" ", "  ", "-", " - ", ""]),
    case=st.sampled_from([str.lower, str.upper, str.title]),
)
def test_a_village_is_found_however_its_name_is_written(
    village: Village, prefix: str, gap: str, case: Callable[[str], str]
) -> None:
    written = prefix + case(village.name).replace(" ", gap)
    assert resolve_place(KNOWN, village=written).village == village.code


@given(st.text(max_size=120), st.sampled_from(["village", "subdistrict", "district"]))
def test_any_text_either_resolves_or_is_refused_in_a_sentence(text: str, field: str) -> None:
    try:
        resolve_place(BOTH, **{field: text})  # type: ignore[arg-type]
    except PlaceError as error:
        assert error.field in {"place", f"place.{field}"}
        assert error.message.endswith((".", "?"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "19.04.09",
            "Kecamatan 19.04.09 is not in district 19.04; known are 19.04.01 Koba, "
            "19.04.02 Pangkalan Baru, 19.04.03 Sungai Selan, 19.04.04 Simpang Katis, "
            "19.04.05 Namang, 19.04.06 Lubuk Besar.",
        ),
        (
            "12.01.01",
            "Kecamatan 12.01.01 is not in a known district; "
            "known are 19.04 Kabupaten Bangka Tengah.",
        ),
        (
            "Kec. Lubuk Besr",
            'Kecamatan "Kec. Lubuk Besr" is not known; did you mean 19.04.06 Lubuk Besar?',
        ),
        (
            "Terak",
            'Kecamatan "Terak" is not known, but there is a village 19.04.04.2007 Terak; '
            "give it as the village.",
        ),
        (
            "19.04.04.2007",
            "19.04.04.2007 is the village Terak, not a subdistrict; give it as the village.",
        ),
    ],
)
def test_an_unknown_subdistrict_is_refused_with_what_is_known(text: str, message: str) -> None:
    error = _refused(subdistrict=text)
    assert error.field == "place.subdistrict"
    assert error.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Desa Belulok", "did you mean 19.04.02.2014 Beluluk?"),
        (
            "Pangkalanbaru",
            "there is a Kecamatan 19.04.02 Pangkalan Baru; give it as the subdistric",
        ),
        ("19.04.01", "19.04.01 is Kecamatan Koba, not a village; give it as the subdistrict."),
        (
            "19.04.05.2099",
            "is not in Kecamatan Namang; known are 19.04.05.2001 Namang, 19.04.05.20",
        ),
        ("19.04.09.2001", "is not in district 19.04; the subdistricts are 19.04.01 Koba, "),
        ("12.01.01.2001", "is not in a known district; known are 19.04 Kabupaten Bangka Tengah."),
        ("Qqqqq", "is not known in Kabupaten Bangka Tengah; give its subdistrict instead."),
        ("-", 'Village "-" is not known'),
        ("x" * 101, "at most 100 characters, not 101."),
    ],
)
def test_an_unknown_village_is_refused_with_what_helps(text: str, message: str) -> None:
    error = _refused(village=text)
    assert error.field == "place.village"
    assert message in error.message


def test_a_village_where_no_villages_are_known_is_refused() -> None:
    without = {"99.02": replace(NEIGHBOUR, villages=())}
    for text in ("Terak", "99.02.01.2001"):
        assert _refused(without, village=text).message == (
            "No villages are listed for Kabupaten Sebelah; give the subdistrict or a position."
        )


def test_a_name_that_several_places_have_is_refused_with_their_codes() -> None:
    error = _refused(BOTH, village="terak")
    assert error.field == "place.village"
    assert error.message == (
        "There are 3 villages called Terak: "
        "19.04.04.2007 Terak in Kecamatan Simpang Katis, Kabupaten Bangka Tengah; "
        "99.02.01.2001 Terak in Kecamatan Koba, Kabupaten Sebelah; "
        "99.02.02.2001 Terak in Kecamatan Sukamaju, Kabupaten Sebelah. Give the code."
    )
    error = _refused(BOTH, subdistrict="Kecamatan Koba")
    assert error.field == "place.subdistrict"
    assert "19.04.01 Koba in Kabupaten Bangka Tengah; 99.02.01 Koba in" in error.message


def test_the_subdistrict_the_district_or_the_position_tells_same_named_places_apart() -> None:
    by_subdistrict = resolve_place(BOTH, village="Terak", subdistrict="Sukamaju")
    by_district = resolve_place(BOTH, village="Terak", district="19.04")
    by_position = resolve_place(BOTH, village="Terak", latitude=-1.91, longitude=106.1)
    assert by_subdistrict.village == "99.02.02.2001"
    assert by_district.village == "19.04.04.2007"
    assert by_position.village == "99.02.01.2001"


def test_a_village_that_is_not_in_the_given_subdistrict_is_refused() -> None:
    error = _refused(village="Terak", subdistrict="Koba")
    assert error.field == "place.village"
    assert error.message == (
        '"Terak" is not in Kecamatan Koba; known is 19.04.04.2007 Terak '
        "in Kecamatan Simpang Katis, Kabupaten Bangka Tengah."
    )


def test_a_name_that_begins_with_its_kind_is_found_with_and_without_it() -> None:
    for text in ("Desa Baru", "Baru", "desa desa baru", "Ds. Baru"):
        assert resolve_place(BOTH, village=text).village == "99.02.02.2002"


def test_a_position_stays_when_a_village_is_named_too() -> None:
    # Nearer to the centre of Namang, but whoever stands there knows the village.
    place = resolve_place(KNOWN, latitude=-2.29, longitude=106.15, village="Terak")
    assert (place.latitude, place.longitude) == (-2.29, 106.15)
    assert not place.approximate
    assert place.subdistrict == "19.04.04"
    assert place.village == "19.04.04.2007"
    assert (place.centre_latitude, place.centre_longitude) == (-2.27, 106.06)


def test_a_position_that_contradicts_the_named_place_is_refused() -> None:
    error = _refused(latitude=-2.17, longitude=106.14, subdistrict="Lubuk Besar")
    assert error.field == "place.subdistrict"
    assert error.message == (
        "The point -2.17, 106.14 is 67 km from the centre of Kecamatan Lubuk Besar (19.04.06); "
        "give only the one that is right."
    )
    outside = _refused(latitude=0.0, longitude=0.0, village="Terak")
    assert outside.field == "place.latitude"
    assert "far outside every known district" in outside.message


def test_many_choices_are_not_all_listed() -> None:
    many = replace(
        NEIGHBOUR,
        subdistricts=tuple(
            Subdistrict(f"99.02.{n:03}", f"Area {n}", -1.9, 106.0, 1000) for n in range(99)
        ),
    )
    message = _refused({"99.02": many}, subdistrict="99.02.500").message
    assert message.endswith("99.02.011 Area 11 and 87 more.")
