"""Volunteers, cases, offers, and the spine."""

from alembic import op

from shared.migrations import SPINE_0001, execute_all

revision = "assignment_0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all(SPINE_0001)
    execute_all("""
        CREATE EXTENSION IF NOT EXISTS cube;
        CREATE EXTENSION IF NOT EXISTS earthdistance;
        CREATE EXTENSION IF NOT EXISTS btree_gist;

        CREATE TABLE volunteers (
            id uuid PRIMARY KEY,
            district text NOT NULL,
            name text NOT NULL,
            role text NOT NULL,
            phone text,
            email text,
            language text NOT NULL DEFAULT 'id',
            village text,
            latitude float8 NOT NULL,
            longitude float8 NOT NULL,
            categories text[] NOT NULL,
            capacity integer NOT NULL,
            open_cases integer NOT NULL DEFAULT 0,
            on_duty boolean NOT NULL DEFAULT true,
            available boolean GENERATED ALWAYS AS (on_duty AND open_cases < capacity) STORED,
            home cube GENERATED ALWAYS AS (ll_to_earth(latitude, longitude)) STORED,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT volunteers_not_overloaded CHECK (open_cases BETWEEN 0 AND capacity),
            CONSTRAINT volunteers_reachable CHECK (phone IS NOT NULL OR email IS NOT NULL)
        -- Room for heap-only updates: a claim changes open_cases and nothing that is indexed.
        ) WITH (fillfactor = 80);
        CREATE UNIQUE INDEX volunteers_phone ON volunteers (district, phone)
            WHERE phone IS NOT NULL;
        CREATE UNIQUE INDEX volunteers_email ON volunteers (district, email) WHERE phone IS NULL;
        CREATE INDEX volunteers_nearest ON volunteers USING gist (district, available, home);

        CREATE TABLE cases (
            id uuid PRIMARY KEY,
            code text NOT NULL,
            district text NOT NULL,
            category text NOT NULL,
            urgency text NOT NULL,
            people integer NOT NULL,
            latitude float8 NOT NULL,
            longitude float8 NOT NULL,
            approximate boolean NOT NULL,
            subdistrict text NOT NULL,
            subdistrict_name text NOT NULL,
            village text,
            village_name text,
            centre_latitude float8 NOT NULL,
            centre_longitude float8 NOT NULL,
            drill boolean NOT NULL,
            traceparent text,
            reported_at timestamptz NOT NULL,
            state text NOT NULL,
            waiting_for text,
            version integer NOT NULL,
            changed_at timestamptz NOT NULL DEFAULT now(),
            next_action_at timestamptz,
            CONSTRAINT cases_state CHECK (state IN ('searching', 'waiting', 'offered'))
        );
        CREATE INDEX cases_due ON cases (next_action_at) WHERE state = 'waiting';

        CREATE TABLE offers (
            id uuid PRIMARY KEY,
            case_id uuid NOT NULL REFERENCES cases,
            volunteer_id uuid NOT NULL REFERENCES volunteers,
            district text NOT NULL,
            answer_code text NOT NULL,
            state text NOT NULL,
            distance_m float8 NOT NULL,
            reasons jsonb NOT NULL,
            made_at timestamptz NOT NULL DEFAULT now(),
            respond_by timestamptz NOT NULL,
            -- Nobody is asked twice for the same case.
            CONSTRAINT offers_asked_once UNIQUE (case_id, volunteer_id),
            CONSTRAINT offers_state CHECK (state IN ('offered'))
        );
        CREATE UNIQUE INDEX offers_one_open_per_case ON offers (case_id) WHERE state = 'offered';
        CREATE UNIQUE INDEX offers_open_code ON offers (answer_code) WHERE state = 'offered';
        CREATE INDEX offers_volunteer ON offers (volunteer_id);
        CREATE SEQUENCE offer_codes;
    """)
