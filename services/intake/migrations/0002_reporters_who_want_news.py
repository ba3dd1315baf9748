"""In which language reporters are told what becomes of their report, and whether they want it."""

from alembic import op

from shared.migrations import execute_all

revision = "intake_0002"
down_revision = "intake_0001"


def upgrade() -> None:
    """The defaults hold for whoever reported before; the version before needs not know of them."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all("""
        ALTER TABLE reports
            ADD COLUMN reporter_language text NOT NULL DEFAULT 'id',
            ADD COLUMN reporter_wants_news boolean NOT NULL DEFAULT true;
    """)
