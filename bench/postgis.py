"""PostGIS as the peer of `bench.matching`: the same volunteers, the same question, its own index.

It needs Debian's packages: apt-get install postgresql-15-postgis-3
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

from ops import embedded_postgres
from services.assignment import matching
from shared.database import Database, Statement, execute, sql

DEBIANS = Path("/usr/lib/postgresql")
EXTENSION = "/usr/share/postgresql/{version}/extension/postgis.control"

_POINT = "ST_SetSRID(ST_MakePoint(longitude, latitude), 4326)::geography"
# Word for word the statement of the matching, in the words of PostGIS: the fastest that were found.
# Its `<->` is on the sphere, and so is the distance, which costs it less than the spheroid.
_WORDS = {
    "FROM volunteers v": "FROM peer v",
    matching._PLACE + " AS place": f"{_POINT} AS place",
    matching._BOX: f"_ST_Expand({_POINT}, radius_m)",
    "v.home <@ need.reach": "v.home && need.reach",
    matching._DISTANCE_M: "ST_Distance(v.home, need.place, false)",
}
_TABLE = (
    "CREATE EXTENSION postgis",
    "CREATE TABLE peer (LIKE volunteers INCLUDING DEFAULTS INCLUDING GENERATED)"
    " WITH (fillfactor = 80)",
    f"""ALTER TABLE peer DROP COLUMN home,
            ADD COLUMN home geography(Point, 4326) GENERATED ALWAYS AS ({_POINT}) STORED""",
)
_COLUMNS = """
    SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
    WHERE attrelid = 'peer'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
_INDEXES = (
    "ALTER TABLE peer ADD PRIMARY KEY (id)",
    "CREATE INDEX peer_nearest ON peer USING gist (district, available, home)",
)


def installation() -> Path | None:
    """The newest PostgreSQL of Debian that has PostGIS; None if there is none."""
    versions = sorted(DEBIANS.glob("[0-9]*"), key=lambda folder: int(folder.name))
    having = [v for v in versions if Path(EXTENSION.format(version=v.name)).exists()]
    return having[-1] if having else None


@asynccontextmanager
async def running(data_dir: Path, programs: Path) -> AsyncIterator[str]:
    """The server of the embedded stack, its settings and all, but with these programs."""
    with patch.object(embedded_postgres, "_installation", lambda user: programs):
        async with embedded_postgres.running(data_dir) as url:
            yield url


async def copy_volunteers(database: Database) -> None:
    """Give the peer the same rows and the same kind of index."""
    async with database.transaction() as session:
        for statement in _TABLE:
            await execute(session, sql(statement))
        ((columns,),) = await execute(session, sql(_COLUMNS))
        copy = f"INSERT INTO peer ({columns}) SELECT {columns} FROM volunteers"  # noqa: S608
        for statement in (copy, *_INDEXES):
            await execute(session, sql(statement), timeout_s=None)
    await database.statement(sql("VACUUM ANALYZE peer"))


def in_its_words(statement: Statement, *, spheroid: bool = False) -> Statement:
    """The matching's statement for PostGIS; with distances on the spheroid if asked for."""
    text = statement.numbered
    for ours, theirs in _WORDS.items():
        assert ours in text, f"the matching no longer says {ours!r}"
        text = text.replace(ours, theirs)
    if spheroid:
        text = text.replace("need.place, false)", "need.place)")
    return Statement(text, statement.names)
