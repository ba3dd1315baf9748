"""Cases that the duty officer looks at before volunteers are asked."""

from alembic import op

from shared.migrations import execute_all

revision = "assignment_0040"
down_revision = "assignment_0020"


def upgrade() -> None:
    """Tables of their own: the version before knows neither, and leaves such cases alone, as
    nothing is due on them."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        CREATE TABLE held_cases (
            case_id uuid PRIMARY KEY REFERENCES cases (id),
            district text NOT NULL,
            reason text NOT NULL,
            urgent boolean NOT NULL,
            look_by timestamptz NOT NULL,
            told boolean NOT NULL DEFAULT false,
            begun_at timestamptz
        );
        CREATE INDEX held_cases_waiting ON held_cases (district, urgent DESC, look_by)
            WHERE begun_at IS NULL;
        CREATE INDEX held_cases_begun ON held_cases (district) WHERE begun_at IS NOT NULL;
        CREATE INDEX held_cases_untold ON held_cases (district) WHERE NOT told;

        CREATE TABLE held_told (
            district text PRIMARY KEY,
            told_at timestamptz NOT NULL
        );
    """)
