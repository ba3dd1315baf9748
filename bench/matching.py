"""Matching in one district with 1,000,000 volunteers: latency, claims, and compared with what.

    python -m bench.matching [--volunteers 1000000] [--server debian|embedded] [--json]

The volunteers of the one district live around 514 towns all over Indonesia, crowded in a few of
them; the cases come from the same places. So many in one district is the hard case, as every look
filters by district first. Whatever is compared is measured in turns in the same run: ratios travel,
absolute figures are this machine's. The server is Debian's PostgreSQL with PostGIS where it is
installed (`apt-get install postgresql-15-postgis-3`), otherwise the embedded one, without the peer.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import numpy
from sqlalchemy.engine import make_url
from uuid_utils.compat import uuid7

from bench import postgis
from ops import embedded_postgres
from services.assignment import matching, offers, search
from services.assignment.search import Candidate, Found, Need, Stage
from shared import migrations
from shared.database import Database, Row, Statement, execute, sql
from shared.districts import District, load_districts
from shared.events import CaseReported, OfferedVolunteer, Place, ReportedCase

ROOT = Path(__file__).parent.parent
DISTRICT = "19.04"
TOWNS = 514
# South, north, west, east of boxes on the islands, and the share of the towns in each.
ISLANDS = (
    (-7.5, -6.2, 106.0, 108.5, 18), (-7.7, -6.8, 108.5, 111.3, 16), (-8.3, -7.0, 111.3, 114.3, 17),
    (0.5, 4.5, 97.5, 100.0, 10), (-2.0, 0.8, 101.0, 103.5, 8), (-5.5, -2.5, 103.5, 105.5, 8),
    (-2.9, -1.7, 105.4, 106.6, 2), (-3.5, 1.0, 110.0, 116.0, 8), (-5.5, -2.5, 119.4, 120.5, 5),
    (-8.8, -8.2, 115.0, 118.5, 4), (-10.2, -8.5, 120.0, 124.5, 2), (-4.5, -2.5, 134.0, 140.5, 2),
)  # fmt: skip
RARE = "sign_language"  # a training of one in 10,000


def note(words: str) -> None:
    """Say on stderr where the run is."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


# --- people and places ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Country:
    """Towns, from the most populous to the smallest, and how people live around them."""

    towns: Sequence[tuple[float, float]]

    @classmethod
    def made(cls, rng: random.Random) -> "Country":
        """514 towns on the islands."""
        boxes = rng.choices(ISLANDS, weights=[box[4] for box in ISLANDS], k=TOWNS)
        return cls([(rng.uniform(b[0], b[1]), rng.uniform(b[2], b[3])) for b in boxes])

    def home(self, rng: random.Random, *, towns: range = range(TOWNS)) -> tuple[float, float]:
        """Where somebody lives: four of five in town (about 5 km), the others farther out."""
        latitude, longitude = self.towns[towns[int(len(towns) * rng.random() ** 2)]]
        spread = 0.05 if rng.random() < 0.8 else 0.3  # degrees
        return latitude + rng.gauss(0, spread), longitude + rng.gauss(0, spread)


# The same distribution as `Country.home`, on the server: seconds instead of a minute. One in ten is
# off duty, one in twenty rests, one in ten helps with some categories only.
_LOAD = sql("""
    INSERT INTO volunteers (id, district, name, role, phone, latitude, longitude, categories,
                            trainings, capacity, on_duty, ready)
    SELECT gen_random_uuid(), CAST(:district AS text), 'Volunteer ' || n,
           CASE WHEN a < 0.90 THEN 'psm' WHEN a < 0.91 THEN 'tksk' WHEN a < 0.95 THEN 'pensosmas'
                ELSE 'pkh' END,
           '+62' || (8000000000 + n),
           latitude + spread * sqrt(-2 * ln(1 - b)) * cos(2 * pi() * c),
           longitude + spread * sqrt(-2 * ln(1 - b)) * sin(2 * pi() * c),
           CASE WHEN d < 0.9 THEN '{}'::text[] ELSE '{homeless,beggar}' END,
           CASE WHEN n % 10000 = 0 THEN ARRAY[CAST(:rare AS text)]
                WHEN e < 0.02 THEN '{mental_health}' ELSE '{}' END,
           2, f >= 0.1, g >= 0.05
    FROM (SELECT person AS n, floor(cardinality(CAST(:latitudes AS float8[])) * power(random(), 2))
                 AS town, CASE WHEN random() < 0.8 THEN 0.05 ELSE 0.3 END AS spread,
                 random() AS a, random() AS b, random() AS c, random() AS d, random() AS e,
                 random() AS f, random() AS g
          FROM generate_series(1, CAST(:volunteers AS int)) AS person) AS people
    JOIN unnest(CAST(:latitudes AS float8[]), CAST(:longitudes AS float8[]))
         WITH ORDINALITY AS t (latitude, longitude, place) ON place = town + 1
""")


async def loaded(server: str, volunteers: int, country: Country) -> Database:
    """A database with assignment's own tables and so many volunteers."""
    url = make_url(f"{server}/volunteers_{volunteers}")
    await migrations.create_database(url)
    await migrations.migrate("assignment", url)
    database = Database(url)
    # Indexes are made after the rows, as a bulk load does.
    kept = "volunteers_nearest", "volunteers_phone"
    async with database.transaction() as session:
        made = [
            (await execute(session, sql(f"SELECT pg_get_indexdef('{name}'::regclass)")))[0][0]
            for name in kept
        ]
        for name in kept:
            await execute(session, sql(f"DROP INDEX {name}"))
        await execute(session, sql("SELECT setseed(0.5)"))
        values = {
            "district": DISTRICT,
            "rare": RARE,
            "volunteers": volunteers,
            "latitudes": [town[0] for town in country.towns],
            "longitudes": [town[1] for town in country.towns],
        }
        await execute(session, _LOAD, values, timeout_s=None)
        for definition in made:
            await execute(session, sql(definition), timeout_s=None)
    await database.statement(sql("VACUUM ANALYZE volunteers"))
    return database


@dataclass
class Bench:
    """What the measurements share: the two databases, the district with the sample policy."""

    database: Database
    smaller: Database
    country: Country
    district: District
    volunteers: int
    rng: random.Random
    peer: bool

    def need(self, *, towns: range = range(TOWNS), **values: Any) -> Need:
        """A case as the offer loop puts it to the matching; one volunteer is wanted."""
        policy = self.district.policy
        latitude, longitude = self.country.home(self.rng, towns=towns)
        given: dict[str, Any] = {
            "case_id": uuid7(), "district": DISTRICT, "neighbours": (), "category": "homeless",
            "needed_roles": (), "needed_trainings": (), "pressing": False, "latitude": latitude,
            "longitude": longitude, "reported_at": datetime.now(UTC),
            "stages": search.plan(policy), "quota": policy.rounds,
            "same_distance_m": policy.same_distance_m, "busy_counts_m": policy.busy_counts_m,
            "recent": policy.recent,
        }  # fmt: skip
        return Need(**given | values)

    def report(self, *, towns: range = range(TOWNS)) -> CaseReported:
        """A report that has passed the gate; one in ten is urgent."""
        latitude, longitude = self.country.home(self.rng, towns=towns)
        place = Place(
            latitude=latitude, longitude=longitude, approximate=False, subdistrict="19.04.01",
            subdistrict_name="Koba", centre_latitude=-2.493, centre_longitude=106.408,
        )  # fmt: skip
        data = ReportedCase(
            code="ABCD2345", category="homeless", place=place, people=1, channel="web",
            urgency="urgent" if self.rng.random() < 0.1 else "normal",
            reported_at=datetime.now(UTC),
        )  # fmt: skip
        made: CaseReported = CaseReported.of(
            data, case_id=uuid7(), district=DISTRICT, time=datetime.now(UTC)
        )
        return made

    async def open_cases(self, reports: Sequence[CaseReported]) -> None:
        """What the handler does with reports: cases, offers, story and events, committed."""
        async with self.database.transaction() as session:
            await offers.open_cases(session, reports, districts={DISTRICT: self.district})

    async def match(self, needs: Sequence[Need]) -> int:
        """Find and claim only, committed; returns how many were claimed."""
        async with self.database.transaction() as session:
            found = await matching.match(session, needs)
        return sum(len(one.chosen) for one in found.values())

    async def offers_made(self) -> int:
        """How many offers there are."""
        return int((await self.database.statement(sql("SELECT count(*) FROM offers")))[0][0])


# --- measuring ------------------------------------------------------------------------------------

Measured = Callable[[], Awaitable[Any]]


async def milliseconds(run: Measured) -> float:
    """How long it takes."""
    began = time.perf_counter()
    await run()
    return (time.perf_counter() - began) * 1000


async def in_turns(
    runs: Callable[[], Mapping[str, Measured]], *, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each of the things compared, in turns, each first as often as the others.

    ``runs`` makes the things anew for every round, with the same input for all of them.
    """
    times: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        things = list(runs().items())
        first = turn % len(things)
        for name, run in things[first:] + things[:first]:
            took = await milliseconds(run)
            if turn:  # the first round prepares the statements
                times.setdefault(name, []).append(took)
    return times


def percentile(times: Sequence[float], share: float) -> float:
    """The time that so large a share of the runs stayed below."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def p50_p99(times: Sequence[float]) -> dict[str, float]:
    """Both, in milliseconds."""
    return {
        "runs": len(times),
        "p50_ms": round(statistics.median(times), 2),
        "p99_ms": round(percentile(times, 0.99), 2),
    }


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """How many times as long the first takes, by the medians."""
    return round(statistics.median(slower) / statistics.median(faster), 2)


def looked_for(needs: Sequence[Need]) -> dict[str, Any]:
    """The values of the matching's statement, as the matching itself makes them."""
    return matching._arrays([(need, DISTRICT) for need in needs]) | {
        "limit": matching.CANDIDATES + 1,
        "named": search.NEARER_NAMED,
        "recent": needs[0].recent,
    }


async def candidates(
    database: Database, needs: Sequence[Need], statement: Statement | None = None
) -> list[Row]:
    """The one query of the matching, or the peer's."""
    return await database.statement(statement or matching._CANDIDATES, looked_for(needs))


def look(
    database: Database, needs: Sequence[Need], statement: Statement | None = None
) -> Measured:
    """The query as a thing to be measured."""
    return lambda: candidates(database, needs, statement)


# --- the measurements -----------------------------------------------------------------------------


async def one_by_one(bench: Bench) -> dict[str, Any]:
    """A case at a time, from BEGIN to the end of COMMIT."""

    def runs() -> dict[str, Measured]:
        report, need = bench.report(), bench.need()
        return {
            "match_and_claim": lambda: bench.match([need]),
            "whole_case": lambda: bench.open_cases([report]),
        }

    times = await in_turns(runs, rounds=1000)
    return {name: p50_p99(taken) for name, taken in times.items()}


async def claims(bench: Bench) -> dict[str, Any]:
    """Claims a second, in batches, from one region whose volunteers fill up meanwhile."""
    region = range(200, 216)
    rates: dict[str, list[float]] = {}
    for size in (200, 500):
        for turn in range(7):
            needs = [bench.need() for _ in range(size)]
            reports = [bench.report() for _ in range(size)]
            before = await bench.offers_made()
            matched = await milliseconds(lambda needs=needs: bench.match(needs))  # type: ignore[misc]
            whole = await milliseconds(lambda r=reports: bench.open_cases(r))  # type: ignore[misc]
            made = await bench.offers_made() - before
            if turn:
                rates.setdefault(f"match_and_claim_batch_{size}", []).append(size / matched)
                rates.setdefault(f"whole_cases_offers_batch_{size}", []).append(made / whole)
    return {f"{name}_per_s": round(1000 * statistics.median(r)) for name, r in rates.items()} | {
        "filling_up": await filling_up(bench, region)
    }


async def filling_up(bench: Bench, region: range) -> list[dict[str, Any]]:
    """Rounds of claims in a region of a few towns, from all free to nearly all full."""
    south, north, west, east = zip(
        *((t[0] - 0.1, t[0] + 0.1, t[1] - 0.1, t[1] + 0.1) for t in bench.country.towns[:0]),
        strict=True,
    ) if False else ((), (), (), ())
    raise NotImplementedError((south, north, west, east, region))
