"""Records that cannot go on now, each with what follows of its case."""

from alembic import op

from shared.migrations import SPINE_0020, execute_all

revision = "intake_0020"
down_revision = "intake_0040"


def upgrade() -> None:
    """A table of its own; the version before knows nothing of it and needs not."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    execute_all(SPINE_0020)
