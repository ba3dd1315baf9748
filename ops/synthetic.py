"""A district made for a file of reports: its places and volunteers lie around the reports' own."""

import csv
import json
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

DISTRICT = "99.01"
# Half as many volunteers as reports, with three places each: enough for all, but the nearest is
# often taken.
REPORTS_PER_VOLUNTEER = 2
CAPACITY = 3
# Reports of one area may lie far apart: none of a file is outside the district made for it.
REACH_KM = 1000
# About one kilometre.
SPREAD_DEGREES = 0.01
# Generous: what a run shows is who is found and how fast, not what an agency has decided. One at a
# time, everybody from the first step on, nobody tired, and no coordinator woken for a week.
POLICY = f"""\
[answer]
normal_minutes = 30
urgent_minutes = 30
[parallel]
normal = 1
urgent = 1
[search]
steps_km = [40]
rounds = 1000
first_roles = []
neighbours = []
retry_after_seconds = 60
same_distance_km = 0.001
busy_counts_km = 0
recent_days = 14
[acceptance]
arrive_within_minutes = 1440
report_within_minutes = 1440
[escalation]
normal_minutes = 10080
urgent_minutes = 10080
[volunteer]
default_capacity = {CAPACITY}
rest_hours = 0
[[coordinators]]
name = "Coordinator"
phone = "+6289020000000"
email = "coordinator@example.org"
"""

CATEGORY_WORDS = {
    "homeless": "homeless",
    "elder": "elderly_abandoned",
    "child": "child_neglected",
    "mental": "mental_illness",
}


class BrokenReports(Exception):
    """A reports file that cannot be played, with the line and the reason."""


@dataclass(frozen=True)
class PlannedReport:
    """One report of a file: when it came, and the body to send."""

    at: datetime
    body: dict[str, Any]


def read_reports(file: Path) -> list[PlannedReport]:
    """Read a CSV with ``reported_at`` and a position or a place name, in the order of time.

    Raises:
        BrokenReports: a line is broken; it names the line.
    """
    planned: list[PlannedReport] = []
    line = 1
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if "reported_at" not in (reader.fieldnames or []):
                raise BrokenReports(f"{file.name}: line 1: the column reported_at is missing")
            for row in reader:
                line = reader.line_num
                planned.append(_planned(row))
    except (ValueError, TypeError, csv.Error) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise BrokenReports(f"{file.name}: line {line}: {reason}") from error
    if not planned:
        raise BrokenReports(f"{file.name}: there is no report in it")
    return sorted(planned, key=lambda report: report.at.timestamp())


def _planned(row: dict[str, str]) -> PlannedReport:
    place: dict[str, Any] = {}
    if row.get("latitude") and row.get("longitude"):
        place = {"latitude": float(row["latitude"]), "longitude": float(row["longitude"])}
        if not all(map(math.isfinite, place.values())):
            raise ValueError("its position is not a number")
    place |= {key: row[key] for key in ("village", "subdistrict") if row.get(key)}
    if not place:
        raise ValueError("it has neither a position nor a place name")
    body: dict[str, Any] = {
        "place": place,
        "category": row.get("category") or _category(row.get("type") or ""),
        "channel": (row.get("channel") or "web").strip().lower()[:40],
    }
    for key in ("description", "urgency"):
        if row.get(key):
            body[key] = row[key]
    body["area"] = (row.get("area") or "").strip()[:100] or "Unnamed"
    return PlannedReport(datetime.fromisoformat(row["reported_at"]), body)


def _category(kind: str) -> str:
    for word, category in CATEGORY_WORDS.items():
        if word in kind.lower():
            return category
    return "other"


def short_times(answer_s: float) -> str:
    """A policy with which the whole offer loop is seen within a minute: an offer is open for
    ``answer_s`` seconds, and all other times are in proportion."""
    minutes = answer_s / 60
    return f"""\
[answer]
normal_minutes = {minutes:.4f}
urgent_minutes = {minutes:.4f}
[parallel]
normal = 1
urgent = 3
[search]
steps_km = [5, 15, 40]
rounds = 5
first_roles = ["psm", "tksk"]
neighbours = []
retry_after_seconds = 2
same_distance_km = 1
busy_counts_km = 5
recent_days = 14
[acceptance]
arrive_within_minutes = {2.5 * minutes:.4f}
report_within_minutes = {5 * minutes:.4f}
[escalation]
normal_minutes = {15 * minutes:.4f}
urgent_minutes = {8 * minutes:.4f}
[volunteer]
default_capacity = {CAPACITY}
rest_hours = {minutes / 60:.6f}
[[coordinators]]
name = "Coordinator"
phone = "+6289020000000"
email = "coordinator@example.org"
"""


def make_district(
    reports: Sequence[PlannedReport], folder: Path, *, seed: int = 1904, policy: str = POLICY
) -> Path:
    """Write a district for these reports into ``folder``; returns its volunteers file.

    Raises:
        BrokenReports: a report has no position, around which volunteers could be made.
    """
    if any("latitude" not in report.body["place"] for report in reports):
        raise BrokenReports(
            "Each report needs latitude and longitude, as the volunteers are made around them."
        )
    rng = random.Random(seed)  # noqa: S311 - invented volunteers, the same at each run
    areas: dict[str, list[dict[str, float]]] = defaultdict(list)
    for report in reports:
        areas[report.body["area"]].append(report.body["place"])
    target = folder / DISTRICT
    target.mkdir(parents=True, exist_ok=True)
    (target / "places.toml").write_text(_places(areas), encoding="utf-8")
    (target / "policy.toml").write_text(policy, encoding="utf-8")
    volunteers = target / "volunteers.csv"
    with volunteers.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["name", "role", "phone", "latitude", "longitude", "capacity"])
        homes = [report.body["place"] for report in reports]
        for number in range(max(10, len(reports) // REPORTS_PER_VOLUNTEER)):
            home = rng.choice(homes)
            writer.writerow([
                f"Volunteer {number + 1}", "psm", f"+62890{1_0000_000 + number}",
                round(home["latitude"] + rng.uniform(-SPREAD_DEGREES, SPREAD_DEGREES), 6),
                round(home["longitude"] + rng.uniform(-SPREAD_DEGREES, SPREAD_DEGREES), 6),
                CAPACITY,
            ])  # fmt: skip
    return volunteers


# Invented, but shaped as such reports are: few at night, most in the morning when markets and
# offices open, a second wave after work. One number an hour, from midnight.
_BY_HOUR = (2, 1, 1, 1, 2, 5, 9, 12, 14, 13, 12, 10, 8, 8, 8, 8, 9, 9, 8, 7, 6, 5, 4, 3)
# As in the sample of districts/19.04, out of a hundred.
_BY_CATEGORY = {
    "elderly_abandoned": 15, "mental_illness": 13, "stranded_traveller": 12, "poor_family": 10,
    "homeless": 10, "beggar": 8, "child_neglected": 8, "disability": 7, "violence_victim": 7,
    "disaster_victim": 5, "other": 5,
}  # fmt: skip
_URGENT = 0.2
_WITH_POSITION = 0.6
# How far from its village's spot a person is, in degrees: about a kilometre and a half.
_AROUND_DEGREES = 0.013


def generate_reports(
    spots: Sequence[Mapping[str, Any]],
    *,
    count: int,
    seed: int,
    days: int = 60,
    first_day: date = date(2026, 1, 12),
    timezone: str = "Asia/Jakarta",
) -> list[PlannedReport]:
    """Invent reports around these spots (``village``, ``latitude``, ``longitude``) over some days.

    Villages differ in how much happens there; the same seed invents the same reports. A part of
    them has no position, only the village's name, as it comes over the telephone.
    """
    rng = random.Random(seed)  # noqa: S311 - invented reports, the same at each run
    busy = [rng.expovariate(1) for _ in spots]
    midnight = datetime.combine(first_day, time(), ZoneInfo(timezone))
    planned = []
    for spot in rng.choices(spots, busy, k=count):
        (hour,) = rng.choices(range(24), _BY_HOUR)
        seconds = rng.randrange(days) * 86400 + hour * 3600 + rng.randrange(3600)
        (category,) = rng.choices(list(_BY_CATEGORY), list(_BY_CATEGORY.values()))
        place: dict[str, Any] = {
            "latitude": round(rng.gauss(spot["latitude"], _AROUND_DEGREES), 5),
            "longitude": round(rng.gauss(spot["longitude"], _AROUND_DEGREES), 5),
        }
        if rng.random() >= _WITH_POSITION and spot.get("village"):
            place = {"village": spot["village"]}
        body = {
            "place": place,
            "category": category,
            "urgency": "urgent" if rng.random() < _URGENT else "normal",
            "channel": "generated",
        }
        planned.append(PlannedReport(midnight + timedelta(seconds=seconds), body))
    return sorted(planned, key=lambda report: report.at)


def _places(areas: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        f'code = "{DISTRICT}"', 'name = "Synthetic district"', 'province = "None"',
        'timezone = "Asia/Jakarta"', f"reach_km = {REACH_KM}",
    ]  # fmt: skip
    for number, (area, places) in enumerate(sorted(areas.items()), start=1):
        latitude = sum(place["latitude"] for place in places) / len(places)
        longitude = sum(place["longitude"] for place in places) / len(places)
        lines += [
            "[[subdistricts]]", f'code = "{DISTRICT}.{number:03}"',
            f"name = {json.dumps(area, ensure_ascii=False)}",
            f"latitude = {latitude:.6f}", f"longitude = {longitude:.6f}", "radius_km = 10",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"
