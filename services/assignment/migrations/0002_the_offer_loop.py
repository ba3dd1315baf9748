"""The offer loop: duty and rest, parallel offers, acceptance, escalation, the story of a case."""

from alembic import op

from shared.migrations import execute_all

revision = "assignment_0002"
down_revision = "assignment_0001"


def upgrade() -> None:
    """Grow what is there; existing cases and offers keep their meaning."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        ALTER TABLE volunteers
            ADD COLUMN trainings text[] NOT NULL DEFAULT '{}',
            ADD COLUMN duty_times jsonb NOT NULL DEFAULT '[]',
            ADD COLUMN off_until timestamptz,
            ADD COLUMN rest_until timestamptz,
            ADD COLUMN ready boolean NOT NULL DEFAULT true,
            ADD COLUMN ready_changes_at timestamptz,
            ADD COLUMN last_reached_at timestamptz,
            DROP CONSTRAINT volunteers_reachable,
            ADD CONSTRAINT volunteers_reachable
                CHECK (NOT on_duty OR phone IS NOT NULL OR email IS NOT NULL),
            DROP COLUMN available;
        ALTER TABLE volunteers ADD COLUMN available boolean
            GENERATED ALWAYS AS (on_duty AND ready AND open_cases < capacity) STORED;
        CREATE INDEX volunteers_nearest ON volunteers USING gist (district, available, home);
        CREATE INDEX volunteers_ready_changes_at ON volunteers (ready_changes_at)
            WHERE ready_changes_at IS NOT NULL;

        ALTER TABLE cases
            ADD COLUMN parallel integer NOT NULL DEFAULT 1,
            ADD COLUMN stage integer NOT NULL DEFAULT 0,
            ADD COLUMN asked_in_stage integer NOT NULL DEFAULT 0,
            ADD COLUMN escalate_at timestamptz,
            ADD COLUMN escalated_at timestamptz,
            ADD COLUMN escalated_for text,
            ADD COLUMN outcome text,
            ADD COLUMN closed_at timestamptz,
            DROP CONSTRAINT cases_state,
            ADD CONSTRAINT cases_state CHECK (state IN (
                'searching', 'waiting', 'offered', 'escalated', 'accepted', 'arrived', 'closed'));
        UPDATE cases SET escalate_at = now() + interval '1 hour';
        DROP INDEX cases_due;
        CREATE INDEX cases_due ON cases (next_action_at) WHERE next_action_at IS NOT NULL;
        CREATE INDEX cases_unserved ON cases (district)
            WHERE state IN ('searching', 'waiting', 'escalated');
        CREATE INDEX cases_code ON cases (code);
        CREATE INDEX cases_open ON cases (reported_at, id) WHERE state <> 'closed';

        ALTER TABLE offers
            ADD COLUMN slot integer NOT NULL DEFAULT 1,
            ADD COLUMN slots integer NOT NULL DEFAULT 1,
            ADD COLUMN ended_at timestamptz,
            ADD COLUMN answered_at timestamptz,
            ADD COLUMN words text,
            ADD COLUMN assigned_by text,
            DROP CONSTRAINT offers_state,
            ADD CONSTRAINT offers_state CHECK (state IN (
                'offered', 'accepted', 'arrived', 'done', 'declined', 'expired', 'withdrawn',
                'unreachable', 'unsent', 'handed_back', 'lapsed')),
            -- With the index on slots: never more open offers than were allowed to be parallel.
            ADD CONSTRAINT offers_slots CHECK (slot BETWEEN 1 AND slots);
        DROP INDEX offers_one_open_per_case;
        CREATE UNIQUE INDEX offers_open_slots ON offers (case_id, slot) WHERE state = 'offered';
        CREATE UNIQUE INDEX offers_one_acceptance ON offers (case_id)
            WHERE state IN ('accepted', 'arrived');
        DROP INDEX offers_volunteer;
        CREATE INDEX offers_volunteer ON offers (volunteer_id, made_at);

        CREATE TABLE answers (
            event_id uuid PRIMARY KEY,
            offer_id uuid NOT NULL,
            case_id uuid NOT NULL,
            answer text NOT NULL,
            outcome text,
            words text,
            channel text NOT NULL,
            verdict text NOT NULL,
            answered_at timestamptz NOT NULL,
            recorded_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX answers_case ON answers (case_id);

        CREATE TABLE case_log (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            case_id uuid NOT NULL REFERENCES cases,
            at timestamptz NOT NULL DEFAULT now(),
            what text NOT NULL,
            who text,
            offer_id uuid,
            why text
        );
        CREATE INDEX case_log_case ON case_log (case_id, id);

        CREATE TABLE openings (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            district text NOT NULL
        );
    """)
