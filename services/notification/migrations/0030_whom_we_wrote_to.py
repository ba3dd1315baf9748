"""To whom we have written by mail, found quickly."""

from alembic import op

revision = "notification_0030"
down_revision = "notification_0040"


def upgrade() -> None:
    """An index; the version before needs not know of it."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("CREATE INDEX messages_email ON messages (lower(email)) WHERE email IS NOT NULL")
