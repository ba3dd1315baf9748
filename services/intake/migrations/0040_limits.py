"""Who sent a report, for a day, so that floods are seen; what is held back; who tries codes."""

from alembic import op

from shared.migrations import execute_all

revision = "intake_0040"
down_revision = "intake_0002"


def upgrade() -> None:
    """The version before writes neither column: its reports count for no limit and are not held."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        ALTER TABLE reports ADD COLUMN caller text, ADD COLUMN review text;
        CREATE INDEX reports_caller ON reports (caller, received_at) WHERE caller IS NOT NULL;
        CREATE INDEX reports_phone ON reports (reporter_phone, received_at)
            WHERE caller IS NOT NULL AND reporter_phone IS NOT NULL;
        CREATE INDEX reports_email ON reports (lower(reporter_email), received_at)
            WHERE caller IS NOT NULL AND reporter_email IS NOT NULL;
        CREATE INDEX reports_district ON reports (district, received_at)
            WHERE caller IS NOT NULL AND review IS NULL;

        CREATE TABLE limit_hits (
            key text PRIMARY KEY,
            hits integer NOT NULL,
            expires_at timestamptz NOT NULL
        );
        CREATE INDEX limit_hits_expires_at ON limit_hits (expires_at);
    """)
