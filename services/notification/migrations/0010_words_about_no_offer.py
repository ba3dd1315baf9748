"""Who reported which case, to which district words belong, and hours whose words were too many."""

from alembic import op

from shared.migrations import execute_all

revision = "notification_0010"
down_revision = "notification_0030"


def upgrade() -> None:
    """Grow what is there; a process of the release before goes on beside it."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        ALTER TABLE inbound ADD COLUMN district text;

        CREATE TABLE reported_by (
            case_id uuid PRIMARY KEY,
            code text NOT NULL,
            district text NOT NULL,
            subdistrict text NOT NULL,
            phone text,
            email text,
            language text NOT NULL,
            drill boolean NOT NULL,
            reported_at timestamptz NOT NULL,
            kept_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX reported_by_phone ON reported_by (phone, reported_at);
        CREATE INDEX reported_by_email ON reported_by (lower(email), reported_at);
        CREATE INDEX reported_by_kept_at ON reported_by (kept_at);

        CREATE TABLE crowded_hours (
            district text NOT NULL,
            hour timestamptz NOT NULL,
            told_at timestamptz,
            PRIMARY KEY (district, hour)
        );
    """)
