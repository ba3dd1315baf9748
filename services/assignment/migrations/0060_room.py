"""Accepted cases fill a volunteer; open offers and drills are counted beside them."""

from alembic import op

from shared.migrations import execute_all

revision = "assignment_0060"
down_revision = "assignment_0040"


def upgrade() -> None:
    """Let the database count, for this version and for the one before alike.

    `open_cases` counted open offers, too, and each process added and took away by itself. Now
    triggers on `offers` keep the counts, whoever writes. The version before goes on adding and
    taking away while both run: what it writes to `open_cases` is not stored.
    """
    op.execute("SET LOCAL lock_timeout = '5s'")
    # No offer changes between the counting and the first trigger.
    op.execute("LOCK TABLE offers IN SHARE ROW EXCLUSIVE MODE")
    execute_all("""
        ALTER TABLE volunteers
            ADD COLUMN open_offers integer NOT NULL DEFAULT 0,
            ADD COLUMN open_drills integer NOT NULL DEFAULT 0;
        ALTER TABLE offers
            DROP CONSTRAINT offers_state,
            ADD CONSTRAINT offers_state CHECK (state IN (
                'offered', 'accepted', 'arrived', 'done', 'declined', 'expired', 'withdrawn',
                'unreachable', 'unsent', 'handed_back', 'lapsed', 'called_off'));
        -- What one volunteer has open, and to count it.
        CREATE INDEX offers_open ON offers (volunteer_id)
            WHERE state IN ('offered', 'accepted', 'arrived');
        UPDATE volunteers v
        SET open_cases = counted.cases, open_offers = counted.offers, open_drills = counted.drills
        FROM (
            SELECT v.id,
                   count(*) FILTER (WHERE o.state <> 'offered' AND NOT o.drill) AS cases,
                   count(*) FILTER (WHERE o.state = 'offered' AND NOT o.drill) AS offers,
                   count(*) FILTER (WHERE o.drill) AS drills
            FROM volunteers v
            LEFT JOIN offers o ON o.volunteer_id = v.id
                              AND o.state IN ('offered', 'accepted', 'arrived')
            GROUP BY v.id
        ) AS counted
        WHERE v.id = counted.id
          AND (v.open_cases, v.open_offers, v.open_drills)
              IS DISTINCT FROM (counted.cases, counted.offers, counted.drills);
        -- No upper bound: the version before knows no limit, and would park what meets one.
        ALTER TABLE volunteers
            ADD CONSTRAINT volunteers_offers CHECK (open_offers >= 0),
            ADD CONSTRAINT volunteers_drills CHECK (open_drills >= 0);
    """)
    for statement in COUNTING:
        op.execute(statement)


# What an offer counts as: an accepted case, an open offer, a drill in either state.
_COUNTS = """
    SELECT volunteer_id, {sign} AS n, drill, state FROM {rows}
    WHERE state IN ('offered', 'accepted', 'arrived')
"""
# Volunteers are locked in the order of their ids, and only those whose counts change.
_ADD = """
    WITH changed AS (
        SELECT volunteer_id AS id,
               coalesce(sum(n) FILTER (WHERE state <> 'offered' AND NOT drill), 0) AS cases,
               coalesce(sum(n) FILTER (WHERE state = 'offered' AND NOT drill), 0) AS offers,
               coalesce(sum(n) FILTER (WHERE drill), 0) AS drills
        FROM ({counted}) AS counted
        GROUP BY volunteer_id
    ), locked AS (
        SELECT v.id FROM volunteers v JOIN changed c USING (id)
        WHERE (c.cases, c.offers, c.drills) <> (0, 0, 0)
        ORDER BY v.id FOR NO KEY UPDATE OF v
    )
    UPDATE volunteers v
    SET open_cases = v.open_cases + c.cases, open_offers = v.open_offers + c.offers,
        open_drills = v.open_drills + c.drills
    FROM changed c JOIN locked USING (id)
    WHERE v.id = c.id
"""


def _function(name: str, counted: str) -> str:
    return f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            {_ADD.format(counted=counted)};
            RETURN NULL;
        END $$
    """


_BEFORE = _COUNTS.format(sign="-1", rows="rows_before")
_AFTER = _COUNTS.format(sign="1", rows="rows_after")
COUNTING = (
    _function("count_made_offers", _AFTER),
    _function("count_changed_offers", f"{_BEFORE} UNION ALL {_AFTER}"),
    _function("count_deleted_offers", _BEFORE),
    """CREATE TRIGGER offers_made AFTER INSERT ON offers
       REFERENCING NEW TABLE AS rows_after
       FOR EACH STATEMENT EXECUTE FUNCTION count_made_offers()""",
    """CREATE TRIGGER offers_changed AFTER UPDATE ON offers
       REFERENCING OLD TABLE AS rows_before NEW TABLE AS rows_after
       FOR EACH STATEMENT EXECUTE FUNCTION count_changed_offers()""",
    """CREATE TRIGGER offers_deleted AFTER DELETE ON offers
       REFERENCING OLD TABLE AS rows_before
       FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_offers()""",
    # Only the triggers above count: what a statement writes by itself is not stored.
    """CREATE FUNCTION keep_counted_cases() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
           NEW.open_cases := OLD.open_cases;
           RETURN NEW;
       END $$""",
    """CREATE TRIGGER volunteers_counted BEFORE UPDATE OF open_cases ON volunteers
       FOR EACH ROW WHEN (pg_trigger_depth() = 0)
       EXECUTE FUNCTION keep_counted_cases()""",
)
