"""Where something is: from what a person wrote to a point, its subdistrict and its district."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shared.districts import (
    District,
    Districts,
    Subdistrict,
    Village,
    direction,
    name_keys,
    refusal,
)

EARTH_RADIUS_M = 6378168.0
"""The sphere of PostgreSQL's earthdistance (its SQL function `earth()`), in metres.

The same radius on both sides, so that a distance computed here equals the one of the query that
chose the volunteer. https://www.postgresql.org/docs/current/earthdistance.html
"""

_CODE = re.compile(r"[0-9][0-9.]*")
_LONGEST_NAME = 100  # the longest of the country's 83,762 village names has 51 letters
_LISTED_AT_MOST = 12  # as many choices as a person reads; most districts have fewer kecamatan


class PlaceError(Exception):
    """A place that cannot be used: `field` such as `place.latitude`, `message` a sentence."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class DistrictAway(PlaceError):
    """The place is, or may be, in a district that cannot be used until its folder is mended."""


class _NotFound(PlaceError):
    """No known district has it, and nothing there is like it either."""


@dataclass(frozen=True, slots=True)
class Place:
    """A resolved place. Codes are Kemendagri's, positions degrees, `radius_m` metres.

    `latitude` and `longitude` are a person's place: they stay on internal topics. The public feed
    gets `subdistrict` and the `centre_…` of it. `approximate` says that the position is only the
    subdistrict's centre, with the person somewhere within `radius_m` of it.
    """

    district: str
    subdistrict: str
    subdistrict_name: str
    village: str | None
    latitude: float
    longitude: float
    approximate: bool
    radius_m: float
    centre_latitude: float
    centre_longitude: float
    village_name: str | None = None


@dataclass(frozen=True, slots=True)
class _Named:
    district: District
    subdistrict: Subdistrict
    village: Village | None = None


def great_circle_m(
    latitude_1: float, longitude_1: float, latitude_2: float, longitude_2: float
) -> float:
    """Return the distance in metres between two points in degrees, along the great circle.

    Haversine formula (R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68, 1984) on
    the sphere of PostgreSQL's earthdistance. Never negative; exact for equal points.
    """
    phi_1, phi_2 = math.radians(latitude_1), math.radians(latitude_2)
    half_phi = math.sin((phi_2 - phi_1) / 2)
    half_lambda = math.sin(math.radians(longitude_2 - longitude_1) / 2)
    h = half_phi * half_phi + math.cos(phi_1) * math.cos(phi_2) * half_lambda * half_lambda
    # Rounding takes h of antipodes a hair over 1, where asin is not defined.
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, h)))


def resolve_place(
    districts: Mapping[str, District],
    *,
    latitude: float | None = None,
    longitude: float | None = None,
    village: str | None = None,
    subdistrict: str | None = None,
    district: str | None = None,
) -> Place:
    """Find the place that a report means.

    A position (degrees) belongs to the subdistrict with the nearest centre, unless a village or
    subdistrict is named as well: then the position stays and the named one is believed, because
    nearest centres only approximate the borders. Without a position the place is the centre of
    the subdistrict, marked approximate. Villages and subdistricts are given by code or by name;
    blank texts count as not given. `district` (a code) narrows the search.

    Raises `PlaceError` with the field and a sentence for the person who reports; `DistrictAway`
    where a district that is refused now (see `Districts`) would know the place, or may.
    """
    away = _away(districts)
    said = (("district", district), ("subdistrict", subdistrict), ("village", village))
    for field, given in said if away else ():
        code = _dotted(given.strip()) if given and _CODE.fullmatch(given.strip()) else ""
        if found := [one for one in away if code == one or code.startswith(f"{one}.")]:
            raise DistrictAway(f"place.{field}", _cannot_now(found))
    try:
        return _resolved(
            districts,
            latitude=latitude,
            longitude=longitude,
            village=village,
            subdistrict=subdistrict,
            district=district,
        )
    except _NotFound as error:
        if away and district is None:
            raise DistrictAway(error.field, f"{error.message} {_cannot_now(away)}") from None
        raise


def _away(districts: Mapping[str, District]) -> list[str]:
    """The codes of districts that have a folder and cannot be used now."""
    codes = districts.refused if isinstance(districts, Districts) else ()
    return [code for code in codes if _CODE.fullmatch(code) and refusal(districts, code)]


def _cannot_now(codes: Sequence[str]) -> str:
    return (
        f"District {' and '.join(codes)} cannot take reports at the moment; please try again "
        "later. If it is urgent, call 112 or the social agency."
    )


def _resolved(
    districts: Mapping[str, District],
    *,
    latitude: float | None,
    longitude: float | None,
    village: str | None,
    subdistrict: str | None,
    district: str | None,
) -> Place:
    among = _districts_among(districts, _text("place.district", district))
    point = _point(latitude, longitude)
    named = _named(
        among,
        village=_text("place.village", village),
        subdistrict=_text("place.subdistrict", subdistrict),
    )
    if point is None:
        if not named:
            raise PlaceError(
                "place", "Give a position (latitude and longitude), a village or a subdistrict."
            )
        return _approximate_place(_only(named))
    if not named:
        return _place_at(point, _nearest(among, point))
    return _place_at(point, _nearest_named(named, point))


def _text(field: str, text: str | None) -> str | None:
    text = (text or "").strip()
    if len(text) > _LONGEST_NAME:
        raise PlaceError(
            field,
            f"A place's name or code has at most {_LONGEST_NAME} characters, not {len(text)}.",
        )
    return text or None


def _districts_among(districts: Mapping[str, District], code: str | None) -> Sequence[District]:
    if code is None:
        return tuple(districts.values())
    found = districts.get(code)
    if found is None:
        raise PlaceError(
            "place.district",
            f"District {code} is not known; {_known_districts(districts.values())}.",
        )
    return (found,)


def _point(latitude: float | None, longitude: float | None) -> tuple[float, float] | None:
    if latitude is None and longitude is None:
        return None
    if latitude is None:
        raise PlaceError("place.latitude", "There is a longitude but no latitude; give both.")
    if longitude is None:
        raise PlaceError("place.longitude", "There is a latitude but no longitude; give both.")
    # Written so that NaN fails too.
    if not -90 <= latitude <= 90:
        raise PlaceError(
            "place.latitude", f"The latitude must be between -90 and 90, not {latitude}."
        )
    if not -180 <= longitude <= 180:
        raise PlaceError(
            "place.longitude", f"The longitude must be between -180 and 180, not {longitude}."
        )
    return float(latitude), float(longitude)


# --- by position -------------------------------------------------------------------------------


def _nearest(among: Iterable[District], point: tuple[float, float]) -> _Named:
    """Return the subdistrict with the nearest centre whose district reaches the point."""
    x, y, z = direction(*point)
    nearest: _Named | None = None
    nearest_square = math.inf
    for district in among:
        best: Subdistrict | None = None
        best_square = math.inf
        # The square of the straight line through the earth orders as the great circle does, and
        # costs a tenth of it: this runs for every report.
        for to_x, to_y, to_z, subdistrict in district.centres:
            dx, dy, dz = x - to_x, y - to_y, z - to_z
            square = dx * dx + dy * dy + dz * dz
            if square < best_square:
                best, best_square = subdistrict, square
        if best and best_square < nearest_square and _reaches(district, best, point):
            nearest, nearest_square = _Named(district, best), best_square
    if nearest is None:
        raise _NotFound("place.latitude", _outside(among, point))
    return nearest


def _reaches(district: District, subdistrict: Subdistrict, point: tuple[float, float]) -> bool:
    # (0, 0) is what a phone sends that has no position, whatever district may lie there.
    return point != (0, 0) and _distance_m(subdistrict, point) <= district.reach_km * 1000


def _distance_m(subdistrict: Subdistrict, point: tuple[float, float]) -> float:
    return great_circle_m(*point, subdistrict.latitude, subdistrict.longitude)


def _outside(among: Iterable[District], point: tuple[float, float]) -> str:
    distances = [
        (_distance_m(subdistrict, point), district.name)
        for district in among
        for subdistrict in district.subdistricts
    ]
    where = f"The point {point[0]}, {point[1]} is far outside every known district"
    if not distances:
        return f"{where}; none is known."
    distance_m, name = min(distances)
    return f"{where}; the nearest is {name}, {distance_m / 1000:,.0f} km away."


def _nearest_named(named: Sequence[_Named], point: tuple[float, float]) -> _Named:
    """Return the one of the same-named places that is nearest to the point."""
    best = min(named, key=lambda one: _distance_m(one.subdistrict, point))
    if _reaches(best.district, best.subdistrict, point):
        return best
    _nearest([one.district for one in named], point)  # outside of everything: says so
    kilometres = _distance_m(best.subdistrict, point) / 1000
    raise PlaceError(
        "place.village" if best.village else "place.subdistrict",
        f"The point {point[0]}, {point[1]} is {kilometres:,.0f} km from the centre of Kecamatan "
        f"{best.subdistrict.name} ({best.subdistrict.code}); give only the one that is right.",
    )


# --- by name or code ---------------------------------------------------------------------------


def _named(
    among: Sequence[District], *, village: str | None, subdistrict: str | None
) -> Sequence[_Named]:
    subdistricts = _named_subdistricts(among, subdistrict) if subdistrict else ()
    if not village:
        return subdistricts
    villages = _named_villages(among, village)
    if not subdistrict:
        return villages
    codes = {one.subdistrict.code for one in subdistricts}
    both = [one for one in villages if one.subdistrict.code in codes]
    if not both:
        elsewhere = ", ".join(_choice(one) for one in villages[:_LISTED_AT_MOST])
        raise PlaceError(
            "place.village",
            f"{_quoted(village)} is not in Kecamatan {subdistricts[0].subdistrict.name}; "
            f"known is {elsewhere}.",
        )
    return both


def _named_subdistricts(among: Sequence[District], text: str) -> Sequence[_Named]:
    if _CODE.fullmatch(text):
        code = _dotted(text)
        found = [
            _Named(district, district.subdistrict_by_code[code])
            for district in among
            if code in district.subdistrict_by_code
        ]
        if not found:
            raise PlaceError("place.subdistrict", _unknown_subdistrict_code(among, code))
        return found
    for key in name_keys(text):
        found = [
            _Named(district, subdistrict)
            for district in among
            for subdistrict in district.subdistricts_by_key.get(key, ())
        ]
        if found:
            return found
    message, like = _unknown_subdistrict_name(among, text)
    raise (PlaceError if like else _NotFound)("place.subdistrict", message)


def _named_villages(among: Sequence[District], text: str) -> Sequence[_Named]:
    if _CODE.fullmatch(text):
        code = _dotted(text)
        found = [
            _village(district, district.village_by_code[code])
            for district in among
            if code in district.village_by_code
        ]
        if not found:
            raise PlaceError("place.village", _unknown_village_code(among, code))
        return found
    for key in name_keys(text):
        found = [
            _village(district, village)
            for district in among
            for village in district.villages_by_key.get(key, ())
        ]
        if found:
            return found
    message, like = _unknown_village_name(among, text)
    raise (PlaceError if like else _NotFound)("place.village", message)


def _village(district: District, village: Village) -> _Named:
    return _Named(district, district.subdistrict_by_code[village.subdistrict], village)


def _dotted(code: str) -> str:
    """Return `19.04.01.2004` for `1904012004`; a code with dots stays as it is."""
    if "." in code:
        return code.strip(".")
    return ".".join(part for part in (code[:2], code[2:4], code[4:6], code[6:]) if part)


def _only(named: Sequence[_Named]) -> _Named:
    if len(named) == 1:
        return named[0]
    choices = "; ".join(_choice(one) for one in named[:_LISTED_AT_MOST])
    what, field, name = (
        ("villages", "place.village", named[0].village.name)
        if named[0].village
        else ("subdistricts", "place.subdistrict", named[0].subdistrict.name)
    )
    raise PlaceError(
        field,
        f"There are {len(named)} {what} called {name}: {choices}{_more(len(named))}. "
        "Give the code.",
    )


def _place_at(point: tuple[float, float], found: _Named) -> Place:
    return _place(found, point, approximate=False, radius_m=0.0)


def _approximate_place(found: _Named) -> Place:
    # No package ships the centres of villages, so a village is somewhere in its subdistrict.
    centre = (found.subdistrict.latitude, found.subdistrict.longitude)
    return _place(found, centre, approximate=True, radius_m=found.subdistrict.radius_m)


def _place(
    found: _Named, point: tuple[float, float], *, approximate: bool, radius_m: float
) -> Place:
    return Place(
        district=found.district.code,
        subdistrict=found.subdistrict.code,
        subdistrict_name=found.subdistrict.name,
        village=found.village.code if found.village else None,
        latitude=point[0],
        longitude=point[1],
        approximate=approximate,
        radius_m=radius_m,
        centre_latitude=found.subdistrict.latitude,
        centre_longitude=found.subdistrict.longitude,
        village_name=found.village.name if found.village else None,
    )


# --- what to tell a person ---------------------------------------------------------------------


def _unknown_subdistrict_code(among: Sequence[District], code: str) -> str:
    for district in among:
        if code in district.village_by_code:
            name = district.village_by_code[code].name
            return f"{code} is the village {name}, not a subdistrict; give it as the village."
        if code.startswith(f"{district.code}."):
            known = _listed(district.subdistricts)
            return f"Kecamatan {code} is not in district {district.code}; known are {known}."
    return f"Kecamatan {code} is not in a known district; {_known_districts(among)}."


def _unknown_subdistrict_name(among: Sequence[District], text: str) -> tuple[str, bool]:
    """The sentence, and whether it names something that may be meant."""
    start = f"Kecamatan {_quoted(text)} is not known"
    for key in name_keys(text):
        for district in among:
            for village in district.villages_by_key.get(key, ()):
                there = f"there is a village {_coded(village)}; give it as the village."
                return f"{start}, but {there}", True
    near = _similar(text, [district.subdistricts_by_key for district in among])
    if near:
        return f"{start}; {_did_you_mean(near)}", True
    known = [subdistrict for district in among for subdistrict in district.subdistricts]
    return f"{start}; known are {_listed(known)}." if known else f"{start}; none is known.", False


def _unknown_village_code(among: Sequence[District], code: str) -> str:
    for district in among:
        if not code.startswith(f"{district.code}."):
            continue
        if not district.villages:
            return _no_villages(among)
        if code in district.subdistrict_by_code:
            name = district.subdistrict_by_code[code].name
            return f"{code} is Kecamatan {name}, not a village; give it as the subdistrict."
        subdistrict = district.subdistrict_by_code.get(code.rpartition(".")[0])
        if subdistrict is None:
            known = _listed(district.subdistricts)
            return (
                f"Village {code} is not in district {district.code}; the subdistricts are {known}."
            )
        known = _listed([v for v in district.villages if v.subdistrict == subdistrict.code])
        return f"Village {code} is not in Kecamatan {subdistrict.name}; known are {known}."
    return f"Village {code} is not in a known district; {_known_districts(among)}."


def _unknown_village_name(among: Sequence[District], text: str) -> tuple[str, bool]:
    """The sentence, and whether it names something that may be meant."""
    if not any(district.villages for district in among):
        return _no_villages(among), False
    start = f"Village {_quoted(text)} is not known"
    for key in name_keys(text):
        for district in among:
            for found in district.subdistricts_by_key.get(key, ()):
                there = f"there is a Kecamatan {_coded(found)}; give it as the subdistrict."
                return f"{start}, but {there}", True
    near = _similar(text, [district.villages_by_key for district in among])
    if near:
        return f"{start}; {_did_you_mean(near)}", True
    return f"{start} in {_names(among)}; give its subdistrict instead.", False


def _no_villages(among: Sequence[District]) -> str:
    return f"No villages are listed for {_names(among)}; give the subdistrict or a position."


def _similar(
    text: str, indexes: Iterable[Mapping[str, Sequence[Subdistrict | Village]]]
) -> Sequence[Subdistrict | Village]:
    keys = name_keys(text)
    if not keys:
        return ()
    by_key: dict[str, list[Subdistrict | Village]] = {}
    for index in indexes:
        for key, places in index.items():
            by_key.setdefault(key, []).extend(places)
    # 0.75: one or two letters wrong in names of six to twelve; lower suggests strangers.
    near = difflib.get_close_matches(keys[-1], by_key, n=3, cutoff=0.75)
    return list({place.code: place for key in near for place in by_key[key]}.values())[:3]


def _did_you_mean(places: Iterable[Subdistrict | Village]) -> str:
    return f"did you mean {' or '.join(_coded(one) for one in places)}?"


def _choice(one: _Named) -> str:
    if one.village:
        return f"{_coded(one.village)} in Kecamatan {one.subdistrict.name}, {one.district.name}"
    return f"{_coded(one.subdistrict)} in {one.district.name}"


def _coded(place: Subdistrict | Village | District) -> str:
    return f"{place.code} {place.name}"


def _listed(places: Sequence[Subdistrict | Village | District]) -> str:
    return ", ".join(_coded(one) for one in places[:_LISTED_AT_MOST]) + _more(len(places))


def _more(count: int) -> str:
    return f" and {count - _LISTED_AT_MOST} more" if count > _LISTED_AT_MOST else ""


def _names(among: Sequence[District]) -> str:
    return (
        ", ".join(district.name for district in among[:_LISTED_AT_MOST]) + _more(len(among))
        or "any district"
    )


def _known_districts(districts: Iterable[District]) -> str:
    known = tuple(districts)
    return f"known are {_listed(known)}" if known else "none is known"


def _quoted(text: str) -> str:
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    return f'"{shown}"'
