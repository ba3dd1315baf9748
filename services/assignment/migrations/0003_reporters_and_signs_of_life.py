"""Reporters beside their case; how volunteers want to be reached, and tests whether they can be."""

from alembic import op

from shared.migrations import execute_all

revision = "assignment_0003"
down_revision = "assignment_0002"


def upgrade() -> None:
    """Grow what is there; the version before knows nothing of it and needs not."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        CREATE TABLE reporters (
            case_id uuid PRIMARY KEY REFERENCES cases,
            contact jsonb NOT NULL,
            told_of_help boolean NOT NULL DEFAULT false
        );

        ALTER TABLE volunteers
            ADD COLUMN channel text,
            ADD COLUMN stopped text[] NOT NULL DEFAULT '{}',
            ADD COLUMN reachable boolean NOT NULL DEFAULT true,
            ADD CONSTRAINT volunteers_channel CHECK (channel IN ('sms', 'email', 'other'));

        ALTER TABLE offers ADD COLUMN drill boolean NOT NULL DEFAULT false;

        CREATE TABLE pings (
            id uuid PRIMARY KEY,
            volunteer_id uuid NOT NULL REFERENCES volunteers,
            district text NOT NULL,
            answer_code text NOT NULL,
            state text NOT NULL DEFAULT 'asked',
            drill boolean NOT NULL,
            asked_at timestamptz NOT NULL DEFAULT now(),
            respond_by timestamptz NOT NULL,
            ended_at timestamptz,
            words text,
            reason text,
            CONSTRAINT pings_state CHECK (state IN (
                'asked', 'answered', 'unanswered', 'unreachable'))
        );
        CREATE UNIQUE INDEX pings_one_open ON pings (volunteer_id) WHERE state = 'asked';
        CREATE UNIQUE INDEX pings_open_code ON pings (answer_code) WHERE state = 'asked';
        CREATE INDEX pings_respond_by ON pings (respond_by) WHERE state = 'asked';
        CREATE INDEX pings_volunteer ON pings (volunteer_id, asked_at);
    """)
