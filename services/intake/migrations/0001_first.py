"""Reports, the newest public state of each case, and the spine."""

from alembic import op

from shared.migrations import SPINE_0001, execute_all

revision = "intake_0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all(SPINE_0001)
    execute_all("""
        CREATE TABLE reports (
            id uuid PRIMARY KEY,
            case_id uuid NOT NULL,
            code text NOT NULL UNIQUE,
            idempotency_key text NOT NULL UNIQUE,
            body_hash text NOT NULL,
            district text NOT NULL,
            category text NOT NULL,
            urgency text NOT NULL,
            people integer NOT NULL,
            description text,
            channel text NOT NULL,
            latitude float8 NOT NULL,
            longitude float8 NOT NULL,
            approximate boolean NOT NULL,
            subdistrict text NOT NULL,
            subdistrict_name text NOT NULL,
            village text,
            reporter_name text,
            reporter_phone text,
            reporter_email text,
            drill boolean NOT NULL,
            received_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX ix_reports_case_id ON reports (case_id);

        CREATE TABLE case_states (
            case_id uuid PRIMARY KEY,
            version integer NOT NULL,
            state text NOT NULL,
            waiting_for text,
            changed_at timestamptz NOT NULL
        );
    """)
